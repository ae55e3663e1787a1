/** The options of quiesce-storage-daemon, and what each does where it stands. */
import { Duplex } from 'node:stream';
import {
  addBlockdev, addExport, BlockError, keepJobsIn, parseChardevOptions, socketAddress, startNbdServer, visitText, type KeptJobs,
  type Chardev, type JsonDict, type StorageDaemon,
} from '../../src/index.js';
import type { LongOption } from '../getopt.mjs';
import { addObject } from '../object-option.mjs';
import { print } from '../program.mjs';
import { openTraceFile, takeTrace } from '../trace-option.mjs';

export const OPTIONS: readonly LongOption[] = [
  { name: 'blockdev', value: true },
  { name: 'chardev', value: true },
  { name: 'daemonize', value: false },
  { name: 'export', value: true },
  { name: 'help', value: false, short: 'h' },
  { name: 'monitor', value: true },
  { name: 'nbd-server', value: true },
  { name: 'object', value: true },
  { name: 'pidfile', value: true },
  { name: 'state-dir', value: true },
  { name: 'trace', value: true, short: 'T' },
  { name: 'version', value: false, short: 'V' },
];

export interface Setting {
  readonly daemon: StorageDaemon;
  /** Aborted when the daemon is to end. */
  readonly stop: AbortSignal;
  pidFile: string | null;
  /** Interrupted jobs: they go on when all is set up. */
  readonly keptJobs: KeptJobs[];
  /** A line on standard error under the option's own words. */
  readonly say: (text: string) => void;
}

/** `end`: it printed something, and that is all. `shared` is where lasting changes go. */
type Effect = (value: string, setting: Setting, shared: Setting) => Promise<'end' | void> | 'end' | void;

export const EFFECTS: Readonly<Record<string, Effect>> = {
  blockdev: (value, { daemon }) => addBlockdev(daemon, typed('BlockdevOptions', value, 'driver')),
  chardev: addChardev,
  export: (value, { daemon }) => addExport(daemon, typed('BlockExportOptions', value, 'type')),
  monitor: (value, { daemon }) => {
    const { chardev, mode, pretty } = typed('MonitorOptions', value, 'chardev');
    daemon.addMonitor(chardev as string, { mode: mode as string | undefined, pretty: pretty === true });
  },
  'nbd-server': (value, { daemon }) => {
    const options = typed('NbdServerOptions', value);
    return startNbdServer(daemon, options, socketAddress(options['addr'] as JsonDict));
  },
  object: (value, { daemon }) => (addObject(daemon.objects, value) ? 'end' : undefined),
  pidfile: (value, _, shared) => { shared.pidFile = value; },
  'state-dir': async (value, { daemon, say, keptJobs }) => {
    const [, directory, seconds] = /^(.*?)(?:,checkpoint=(\d+(?:\.\d+)?))?$/.exec(value)!;
    const checkpointMs = seconds === undefined ? undefined : Math.max(MIN_CHECKPOINT_MS, Number(seconds) * 1000);
    keptJobs.push(await keepJobsIn(daemon, directory!, (message) => say(`info: ${message}`), { checkpointMs }));
  },
  trace: (value, { say }) => {
    const taken = takeTrace(value, say);
    if (taken === 'end') return 'end';
    if (taken.file !== null) openTraceFile(taken.file);
  },
};

const MIN_CHECKPOINT_MS = 100;

/** Key=value or JSON, checked by the schema. */
function typed(type: string, text: string, impliedKey?: string): JsonDict {
  const options = visitText(type, text, impliedKey);
  if (options === null) throw new BlockError('INVALID_ARGUMENT', 'Help is not available for this option');
  return options;
}

async function addChardev(value: string, setting: Setting): Promise<'end' | void> {
  const parsed = parseChardevOptions(value, { daemon: setting.daemon, stdio: setting.daemon.stdio, warn: (text) => setting.say(`warning: ${text}`) });
  if (parsed === 'help') {
    print(CHARDEV_HELP);
    return 'end';
  }
  const base = parsed.mux ? `${parsed.id}-base` : parsed.id;
  const chardev = await setting.daemon.chardevs.add(base, parsed.config);
  if (parsed.mux) await setting.daemon.chardevs.add(parsed.id, { kind: 'mux', base });
  if (chardev.path !== undefined) print(`char device redirected to ${chardev.path} (label ${parsed.id})\n`);
  if (parsed.config.kind === 'socket' && parsed.config.wait) await waitForClient(chardev, setting);
}

async function waitForClient(chardev: Chardev, { say, stop }: Setting): Promise<void> {
  if (chardev.waitForClient === undefined) return;
  say(`info: QEMU waiting for connection on: ${chardev.filename()}`);
  await chardev.waitForClient(stop);
}

/** Gives the process's own streams to one character device. */
export function ownStdio(daemonize: boolean): () => Duplex {
  let taken = false;
  return () => {
    if (daemonize) throw new BlockError('INVALID_ARGUMENT', 'cannot use stdio with -daemonize');
    if (taken) throw new BlockError('BUSY', 'cannot use stdio by multiple character devices');
    taken = true;
    return stdioStream();
  };
}

/** Destroying it leaves the process's own streams alone. */
function stdioStream(): Duplex {
  const { stdin, stdout } = process;
  const stream = new Duplex({
    read: () => void stdin.resume(),
    write: (chunk: Buffer, _, done) => void stdout.write(chunk, () => done()),
  });
  stdin.pause();
  stdin.on('data', (data: Buffer) => { if (!stream.destroyed && !stream.push(data)) stdin.pause(); });
  stdin.once('end', () => { if (!stream.destroyed) stream.push(null); });
  return stream;
}

const CHARDEV_HELP = `Available chardev backend types: 
  pty
  memory
  file
  socket
  stdio
  ringbuf
  null
  pipe
  mux
`;
