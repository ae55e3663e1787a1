/** The command line of quiesce-nbd: qemu-nbd's options, checks and messages. */
import { getopt, GetoptError, type LongOption } from '../getopt.mjs';
import { messageOf } from '../../src/index.js';
import { complain, ProgramError, programName } from '../program.mjs';
import { parseSnapshot } from './image.mjs';
import { parseU64 } from './numbers.mjs';
import type { TraceAction } from '../trace-option.mjs';

const OPTIONS: readonly LongOption[] = [
  { name: 'help', value: false, short: 'h' },
  { name: 'version', value: false, short: 'V' },
  { name: 'bind', value: true, short: 'b' },
  { name: 'port', value: true, short: 'p' },
  { name: 'socket', value: true, short: 'k' },
  { name: 'offset', value: true, short: 'o' },
  { name: 'read-only', value: false, short: 'r' },
  { name: 'allocation-depth', value: false, short: 'A' },
  { name: 'bitmap', value: true, short: 'B' },
  { name: 'connect', value: true, short: 'c' },
  { name: 'disconnect', value: false, short: 'd' },
  { name: 'list', value: false, short: 'L' },
  { name: 'snapshot', value: false, short: 's' },
  { name: 'load-snapshot', value: true, short: 'l' },
  { name: 'nocache', value: false, short: 'n' },
  { name: 'cache', value: true },
  { name: 'aio', value: true },
  { name: 'discard', value: true },
  { name: 'detect-zeroes', value: true },
  { name: 'shared', value: true, short: 'e' },
  { name: 'format', value: true, short: 'f' },
  { name: 'persistent', value: false, short: 't' },
  { name: 'verbose', value: false, short: 'v' },
  { name: 'object', value: true },
  { name: 'export-name', value: true, short: 'x' },
  { name: 'description', value: true, short: 'D' },
  { name: 'tls-creds', value: true },
  { name: 'tls-hostname', value: true },
  { name: 'tls-authz', value: true },
  { name: 'image-opts', value: false },
  { name: 'trace', value: true, short: 'T' },
  { name: 'fork', value: false },
  { name: 'pid-file', value: true },
  { name: 'selinux-label', value: true },
];

const CACHE_MODES = ['none', 'off', 'writeback', 'writethrough', 'directsync', 'unsafe'] as const;
const AIO_MODES = ['threads', 'native', 'io_uring'] as const;
const DISCARD_MODES = { ignore: false, off: false, unmap: true, on: true } as const;
const DETECT_ZEROES = ['off', 'on', 'unmap'] as const;
const MAX_STRING = 4096;
const MAX_INT = 2 ** 31 - 1;

export interface NbdProgramOptions {
  /** `end`: something was printed, and that is all. */
  action: 'serve' | 'list' | 'help' | 'version' | 'end';
  /** FILE, or the device for --disconnect. */
  file: string;
  bind: string | null;
  port: string | null;
  socket: string | null;
  offset: bigint;
  readOnly: boolean;
  allocationDepth: boolean;
  bitmaps: string[];
  connect: string | null;
  disconnect: boolean;
  snapshot: boolean;
  loadSnapshot: string | null;
  cache: typeof CACHE_MODES[number] | null;
  aio: typeof AIO_MODES[number] | null;
  discard: keyof typeof DISCARD_MODES | null;
  detectZeroes: typeof DETECT_ZEROES[number];
  /** Clients at once; 0 = any number. */
  shared: number;
  format: string | null;
  persistent: boolean;
  verbose: boolean;
  exportName: string | null;
  description: string | null;
  tlsCreds: string | null;
  tlsHostname: string | null;
  tlsAuthz: string | null;
  imageOpts: boolean;
  fork: boolean;
  pidFile: string | null;
  selinuxLabel: string | null;
  traceFile: string | null;
}

function defaults(): NbdProgramOptions {
  return {
    action: 'serve', file: '', bind: null, port: null, socket: null, offset: 0n, readOnly: false, allocationDepth: false, bitmaps: [],
    connect: null, disconnect: false, snapshot: false, loadSnapshot: null, cache: null, aio: null, discard: null, detectZeroes: 'off',
    shared: 1, format: null, persistent: false, verbose: false, exportName: null, description: null, tlsCreds: null, tlsHostname: null,
    tlsAuthz: null, imageOpts: false, fork: false, pidFile: null, selinuxLabel: null, traceFile: null,
  };
}

interface OptionEffects {
  /** `--object` takes effect where it stands; true ends the program. */
  readonly addObject: (text: string) => boolean;
  /** So does `--trace`, but for its log file. */
  readonly trace: (text: string) => TraceAction;
}

/** Reads the command line, taking effects in its order; throws ProgramError with the peer's words. */
export function readOptions(argv: readonly string[], effects: OptionEffects): NbdProgramOptions {
  const options = defaults();
  const words: string[] = [];
  const items = getopt(OPTIONS, argv);
  for (let step = nextItem(items); step !== null; step = nextItem(items)) {
    if (step.kind !== 'option') {
      words.push(step.word);
      continue;
    }
    const { name, value } = step;
    if (name === 'help' || name === 'version') return { ...options, action: name };
    if (name === 'object') {
      if (effects.addObject(value!)) return { ...options, action: 'end' };
    } else if (name === 'trace') {
      const taken = effects.trace(value!);
      if (taken === 'end') return { ...options, action: 'end' };
      options.traceFile = taken.file;
    } else TAKE[name]!(options, value ?? '');
  }
  checkWords(options, words);
  return options;
}

function nextItem(items: ReturnType<typeof getopt>) {
  try {
    const { done, value } = items.next();
    return done === true ? null : value;
  } catch (error) {
    if (!(error instanceof GetoptError)) throw error;
    throw new ProgramError(error.message, `${programName}: Try \`${programName} --help' for more information.`);
  }
}

function checkWords(options: NbdProgramOptions, words: readonly string[]): void {
  if (options.action === 'list') {
    if (words.length > 0) throw new ProgramError('List mode is incompatible with a file name');
    if (isPerDevice(options)) throw new ProgramError('List mode is incompatible with per-device settings');
    if (options.fork) throw new ProgramError('List mode is incompatible with forking');
    return;
  }
  if (words.length !== 1) throw new ProgramError('Invalid number of arguments', `Try \`${programName} --help' for more information.`);
  options.file = words[0]!;
}

function isPerDevice(o: NbdProgramOptions): boolean {
  return o.exportName !== null || o.description !== null || o.offset !== 0n || o.connect !== null || o.disconnect || o.format !== null ||
    (o.loadSnapshot !== null && !o.loadSnapshot.startsWith('snapshot.')) || o.bitmaps.length > 0 || o.allocationDepth ||
    o.aio !== null || o.discard !== null || o.cache !== null;
}

type Take = (options: NbdProgramOptions, value: string) => void;

const TAKE: Readonly<Record<string, Take>> = {
  bind: (o, value) => { o.bind = value; },
  port: (o, value) => { o.port = value; },
  socket: (o, value) => {
    if (!value.startsWith('/')) throw new ProgramError('socket path must be absolute');
    o.socket = value;
  },
  offset: (o, value) => {
    const offset = parseU64(value);
    if (offset === null) throw new ProgramError(`Invalid offset '${value}'`);
    o.offset = offset;
  },
  'read-only': (o) => { o.readOnly = true; },
  'allocation-depth': (o) => { o.allocationDepth = true; },
  bitmap: (o, value) => { o.bitmaps.unshift(value); },
  connect: (o, value) => { o.connect = value; },
  disconnect: (o) => { o.disconnect = true; },
  list: (o) => { o.action = 'list'; },
  snapshot: (o) => { o.snapshot = true; },
  'load-snapshot': (o, value) => {
    try {
      parseSnapshot(value);
    } catch (error) {
      complain(messageOf(error));
      throw new ProgramError(`Failed in parsing snapshot param \`${value}'`);
    }
    o.loadSnapshot = value;
    o.readOnly = true;
  },
  nocache: (o) => takeCache(o, 'none'),
  cache: (o, value) => takeCache(o, value),
  aio: (o, value) => {
    if (o.aio !== null) throw new ProgramError('--aio can only be specified once');
    o.aio = AIO_MODES.find((mode) => mode === value) ?? wrong(`Invalid aio mode '${value}'`);
  },
  discard: (o, value) => {
    if (o.discard !== null) throw new ProgramError('--discard can only be specified once');
    if (!Object.hasOwn(DISCARD_MODES, value)) throw new ProgramError(`Invalid discard mode \`${value}'`);
    o.discard = value as keyof typeof DISCARD_MODES;
  },
  'detect-zeroes': (o, value) => {
    o.detectZeroes = DETECT_ZEROES.find((mode) => mode === value) ?? wrong(`Failed to parse detect_zeroes mode: invalid parameter value: ${value}`);
    if (value === 'unmap' && !mayUnmap(o)) throw new ProgramError('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
  },
  shared: (o, value) => {
    const clients = parseU64(value);
    if (clients === null || clients > MAX_INT) throw new ProgramError(`Invalid shared device number '${value}'`);
    o.shared = Number(clients);
  },
  format: (o, value) => { o.format = value; },
  persistent: (o) => { o.persistent = true; },
  verbose: (o) => { o.verbose = true; },
  'export-name': (o, value) => { o.exportName = checkLength('export name', value); },
  description: (o, value) => { o.description = checkLength('export description', value); },
  'tls-creds': (o, value) => { o.tlsCreds = value; },
  'tls-hostname': (o, value) => { o.tlsHostname = value; },
  'tls-authz': (o, value) => { o.tlsAuthz = value; },
  'image-opts': (o) => { o.imageOpts = true; },
  fork: (o) => { o.fork = true; },
  'pid-file': (o, value) => { o.pidFile = value; },
  'selinux-label': (o, value) => { o.selinuxLabel = value; },
};

export function mayUnmap(options: NbdProgramOptions): boolean {
  return options.discard !== null && DISCARD_MODES[options.discard];
}

function takeCache(o: NbdProgramOptions, value: string): void {
  if (o.cache !== null) throw new ProgramError('-n and --cache can only be specified once');
  o.cache = CACHE_MODES.find((mode) => mode === value) ?? wrong(`Invalid cache mode \`${value}'`);
}

function checkLength(what: string, value: string): string {
  if (Buffer.byteLength(value) > MAX_STRING) throw new ProgramError(`${what} '${value}' too long`);
  return value;
}

function wrong(message: string): never {
  throw new ProgramError(message);
}

/** What may not stand together, in the peer's order. `activated`: sockets that came with the process. */
export function checkTogether(o: NbdProgramOptions, activated: number): void {
  if (activated > 0) checkActivation(o, activated);
  if (o.tlsCreds !== null) {
    if (o.connect !== null) throw new ProgramError('TLS is not supported with a host device');
    if (o.tlsAuthz !== null && o.action === 'list') throw new ProgramError('TLS authorization is incompatible with export list');
    if (o.tlsHostname !== null && o.action !== 'list') throw new ProgramError('TLS hostname is only supported with export list');
    return;
  }
  if (o.tlsAuthz !== null) throw new ProgramError('--tls-authz is not permitted without --tls-creds');
  if (o.tlsHostname !== null) throw new ProgramError('--tls-hostname is not permitted without --tls-creds');
}

/** After the credentials were looked up. */
export function checkLabel(o: NbdProgramOptions): void {
  if (o.selinuxLabel === null) return;
  if (o.socket === null && o.connect === null) throw new ProgramError('--selinux-label is not permitted without --socket');
  throw new ProgramError('SELinux support not enabled in this binary');
}

function checkActivation(o: NbdProgramOptions, activated: number): void {
  const clash: readonly (readonly [boolean, string])[] = [
    [o.connect !== null, "NBD device can't be set when using socket activation"],
    [o.socket !== null, "Unix socket can't be set when using socket activation"],
    [o.bind !== null, "The interface can't be set when using socket activation"],
    [o.port !== null, "TCP port number can't be set when using socket activation"],
    [o.selinuxLabel !== null, "SELinux label can't be set when using socket activation"],
    [o.action === 'list', 'List mode is incompatible with socket activation'],
    [activated > 1, `${programName} does not support socket activation with LISTEN_FDS > 1`],
  ];
  const found = clash.find(([is]) => is);
  if (found !== undefined) throw new ProgramError(found[1]);
}
