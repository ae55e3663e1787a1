import packageJson from '../../package.json' with { type: 'json' };
import type { Logger } from 'pino';
import { BlockError, PidFile, keepJobsIn, StorageDaemon, type KeptJobs } from '../../src/index.js';
import { TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';
import { readConfig, type ConfigStep } from '../daemon/config.mjs';
import { LOG_LEVELS, openLog } from '../daemon/log.mjs';
import { makePlaces, type Places } from '../daemon/places.mjs';
import { endInOrder } from '../interrupt.mjs';
import { refuseLiveSocket } from '../live-socket.mjs';

const QMP = 'quiesce-qmp';

export const command = defineCommand({
  description: 'Holds many disks open, exports them over NBD, and obeys QMP on $XDG_RUNTIME_DIR/quiesce/qmp.sock (without XDG_RUNTIME_DIR: in the state ' +
    'directory, $XDG_STATE_HOME/quiesce). It logs JSON lines to standard error. It ends with Ctrl-C, SIGTERM or QMP quit; all that clients have ' +
    'written is in the images then.',
  positionals: {},
  options: {
    config: {
      type: 'string', alias: 'c', value: 'FILE',
      help: 'JSON object of what to set up first: objects, blockdevs, nbd-server, exports, monitors, each the arguments of object-add, blockdev-add, ' +
        'nbd-server-start, block-export-add, chardev-add',
    },
    'log-level': {
      type: 'string', choices: LOG_LEVELS, default: 'info', value: 'LEVEL',
      help: 'info: clients, monitors and exports that come and go, and errors of disks; debug: also the QMP commands that change something',
    },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce daemon', does: 'empty, to be steered over QMP' },
    { line: 'quiesce daemon --config lab.json', does: 'with the disks and exports of a file' },
  ],
  run: async ({ config, logLevel }, { signal }) => {
    endInOrder();
    const steps = config === undefined ? [] : readConfig(config);
    const places = makePlaces();
    await refuseLiveSocket(places.qmpSocket, 'another daemon');
    const pidFile = lockPlaces(places);
    try {
      await serve(steps, places, signal, config ?? null, await openLog(logLevel));
    } finally {
      pidFile.remove();
    }
  },
});

/** One daemon only, from before its socket is there until it has gone. */
function lockPlaces({ pidFile }: Places): PidFile {
  try {
    return PidFile.write(pidFile, process.pid);
  } catch (error) {
    if (error instanceof BlockError && error.code === 'LOCKED') throw new BlockError('BUSY', `another daemon has '${pidFile}' already`, { cause: error });
    throw error;
  }
}

/** Resolves when all is closed. A signal ends it at any time, also while it sets up. */
async function serve(steps: readonly ConfigStep[], { qmpSocket, jobs }: Places, signal: AbortSignal, config: string | null, log: Logger): Promise<void> {
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: `quiesce-${packageJson.version}` }, log });
  if (signal.aborted) daemon.quit();
  signal.addEventListener('abort', () => daemon.quit(), { once: true });
  let started = false;
  let kept: KeptJobs | null = null as KeptJobs | null;
  try {
    const exporting = steps.findIndex(({ where }) => !/^(objects|blockdevs)/.test(where));
    const before = exporting < 0 ? steps.length : exporting;
    // nobody can write to the disks of interrupted jobs before those go on
    const keepJobs = { apply: async () => { kept = await keepJobsIn(daemon, jobs, (message) => log.info({ job: message }, 'kept job')); } };
    for (const step of [...steps.slice(0, before), keepJobs, ...steps.slice(before)]) {
      if (signal.aborted) return;
      await step.apply(daemon);
    }
    await kept?.goOn();
    await daemon.chardevs.add(QMP, { kind: 'socket', address: { type: 'unix', path: qmpSocket }, server: true, wait: false, reconnectSeconds: 0 });
    daemon.addMonitor(QMP);
    log.info({ qmp: qmpSocket, config, steps: steps.map(({ where }) => where) }, 'ready');
    started = true;
    await daemon.ended;
    log.info({ by: signal.aborted ? 'signal' : 'quit' }, 'closing');
  } finally {
    kept?.letGo();
    await daemon.close();
    if (started) log.info('closed');
  }
}
