/** The file of `quiesce daemon`: the arguments of QMP commands, checked by the schema before any takes effect. */
import { readFileSync } from 'node:fs';
import {
  addBlockdev, addChardev, addExport, addressForListening, BlockError, legacySocketAddress, messageOf, parseJson, schema, startNbdServer, visit, wrapHostError,
  type Json, type JsonDict, type StorageDaemon,
} from '../../src/index.js';
import { refuseLiveSocket } from '../live-socket.mjs';

interface Section {
  readonly key: string;
  readonly list: boolean;
  /** The QMP command that takes the same. */
  readonly command: string;
  readonly apply: (daemon: StorageDaemon, args: JsonDict) => Promise<void> | void;
}

/** In the order in which they take effect. */
const SECTIONS: readonly Section[] = [
  { key: 'objects', list: true, command: 'object-add', apply: (daemon, args) => { daemon.objects.add(args); } },
  { key: 'blockdevs', list: true, command: 'blockdev-add', apply: addBlockdev },
  { key: 'nbd-server', list: false, command: 'nbd-server-start', apply: startServer },
  { key: 'exports', list: true, command: 'block-export-add', apply: addExport },
  { key: 'monitors', list: true, command: 'chardev-add', apply: addMonitor },
];

export interface ConfigStep {
  /** Where it stands in the file: `blockdevs[0]`. */
  readonly where: string;
  readonly apply: (daemon: StorageDaemon) => Promise<void>;
}

/** What the file asks for, in order. Every error names the file. */
export function readConfig(file: string): ConfigStep[] {
  const config = parse(file);
  const unknown = Object.keys(config).find((key) => !SECTIONS.some((section) => section.key === key));
  if (unknown !== undefined) throw wrong(file, `'${unknown}' is none of ${SECTIONS.map(({ key }) => key).join(', ')}`);
  return SECTIONS.flatMap((section) => stepsOf(file, section, config[section.key]));
}

function parse(file: string): Record<string, unknown> & JsonDict {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw wrapHostError(error, `could not read '${file}'`);
  }
  const item = parseJson(text);
  if (item.error !== undefined) throw wrong(file, item.error);
  if (!isObject(item.value)) throw wrong(file, 'a JSON object is wanted');
  return item.value;
}

function isObject(value: unknown): value is Record<string, unknown> & JsonDict {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stepsOf(file: string, section: Section, value: Json | undefined): ConfigStep[] {
  const { key, list, command, apply } = section;
  if (value === undefined) return [];
  if (list && !Array.isArray(value)) throw wrong(file, `'${key}' is not a list`);
  const entries = (list ? value : [value]) as readonly Json[];
  return entries.map((entry, index) => {
    const where = list ? `${key}[${index}]` : key;
    const args = named(file, where, () => visit(schema(), schema().command(command)!.argument!, entry, 'json') as JsonDict);
    return { where, apply: (daemon) => namedLater(file, where, async () => apply(daemon, args)) };
  });
}

async function startServer(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const address = legacySocketAddress(args['addr'] as JsonDict);
  const listening = addressForListening(address);
  if ('unix' in listening) await refuseLiveSocket(listening.unix, 'another server');
  await startNbdServer(daemon, args, address);
}

async function addMonitor(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  await addChardev(daemon, args);
  daemon.addMonitor(args['id'] as string);
}

function wrong(file: string, what: string, cause?: unknown): BlockError {
  return new BlockError('INVALID_ARGUMENT', `'${file}': ${what}`, { cause });
}

function named<T>(file: string, where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw wrong(file, `${where}: ${messageOf(error)}`, error);
  }
}

async function namedLater(file: string, where: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw wrong(file, `${where}: ${messageOf(error)}`, error);
  }
}
