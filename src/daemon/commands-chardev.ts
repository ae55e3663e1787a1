/** QMP: character devices. */
import { decodeBase64 } from '../base/base64.js';
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { receivedSocketAddress } from './address.js';
import type { Chardev, ChardevConfig } from './chardev.js';
import type { StorageDaemon } from './daemon.js';
import type { RingBuffer } from './ring-buffer.js';

/** QEMU's list, in its order. */
export const BACKEND_NAMES = ['serial', 'mux', 'pipe', 'parallel', 'null', 'ringbuf', 'stdio', 'socket', 'file', 'memory', 'udp', 'pty'] as const;

const RING_BYTES = 65_536;

export function chardevCommands(daemon: StorageDaemon): CommandTable {
  const { chardevs } = daemon;
  return {
    'query-chardev': () => chardevs.inOrder().map((chardev) => ({
      label: chardev.id, filename: chardev.filename(), 'frontend-open': chardev.frontend !== null,
    })),
    'query-chardev-backends': () => BACKEND_NAMES.map((name) => ({ name })),
    'chardev-add': async (args) => ptyOf(await addChardev(daemon, args)),
    'chardev-change': async ({ id, backend }) => {
      const old = chardevs.find(id as string);
      if (old === undefined) throw new BlockError('NOT_FOUND', `Chardev '${id as string}' does not exist`);
      if (chardevs.isMux(id as string)) throw new BlockError('NOT_SUPPORTED', 'Mux device hotswap not supported yet');
      if (chardevs.isBusy(id as string)) throw new BlockError('BUSY', 'Chardev user does not support chardev hotswap');
      return ptyOf(await named(id as string, () => chardevs.replace(id as string, chardevConfig(daemon, backend as JsonDict))));
    },
    // a break is for serial lines
    'chardev-send-break': ({ id }) => { chardevs.get(id as string); },
    'ringbuf-write': ({ device, data, format }) => ringOf(daemon, device as string).write(format === 'base64' ? decodeBase64(data as string) : Buffer.from(data as string)),
    'ringbuf-read': ({ device, size, format }) => {
      const ring = ringOf(daemon, device as string);
      if (Number(size) <= 0) throw new BlockError('INVALID_ARGUMENT', 'size must be greater than zero');
      return ring.read(Number(size)).toString(encoding(format));
    },
    'chardev-remove': ({ id }) => chardevs.remove(id as string),
  };
}

/** `options`: the arguments of `chardev-add`, checked by the schema. */
export async function addChardev(daemon: StorageDaemon, { id, backend }: JsonDict): Promise<Chardev> {
  const { chardevs } = daemon;
  if (chardevs.find(id as string) !== undefined) throw new BlockError('EXISTS', `Chardev with id '${id as string}' already exists`);
  return named(id as string, () => chardevs.add(id as string, chardevConfig(daemon, backend as JsonDict)));
}

async function named(id: string, open: () => Promise<Chardev>): Promise<Chardev> {
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.code, `Failed to add chardev '${id}': ${error.message}`, { errno: error.errno, cause: error });
  }
}

function ptyOf({ path }: Chardev): JsonDict {
  return path === undefined ? {} : { pty: path };
}

function encoding(format: unknown): 'utf8' | 'base64' {
  return format === 'base64' ? 'base64' : 'utf8';
}

function ringOf({ chardevs }: StorageDaemon, device: string): RingBuffer {
  const chardev = chardevs.find(device);
  if (chardev === undefined) throw new BlockError('NOT_FOUND', `Device '${device}' not found`);
  if (chardev.ring === undefined) throw new BlockError('INVALID_ARGUMENT', `${device} is not a ringbuf device`);
  return chardev.ring;
}

/** Of a ChardevBackend that the schema has checked. */
function chardevConfig(daemon: StorageDaemon, backend: JsonDict): ChardevConfig {
  const data = backend['data'] as JsonDict;
  const type = backend['type'] as string;
  if (data['logfile'] !== undefined) throw noLogFile();
  switch (type) {
    case 'null': return { kind: 'null' };
    case 'ringbuf':
    case 'memory': return { kind: 'ringbuf', bytes: ringBytes(data['size']) };
    case 'file': return { kind: 'file', out: data['out'] as string, input: data['in'] as string | undefined ?? null, append: data['append'] === true };
    case 'pipe': return { kind: 'pipe', path: data['device'] as string };
    case 'pty': return { kind: 'pty' };
    case 'mux': return { kind: 'mux', base: data['chardev'] as string };
    case 'stdio': {
      const stream = daemon.stdio();
      return { kind: 'stdio', stream: () => stream };
    }
    case 'socket': return socketConfig(daemon, data);
    default: throw unknownBackend(type);
  }
}

export function noLogFile(): BlockError {
  return new BlockError('NOT_SUPPORTED', "'logfile' is not available for character devices");
}

/** Throws where it is no power of two. */
export function ringBytes(size: unknown): number {
  const bytes = Number(size ?? RING_BYTES);
  if (!isPowerOfTwo(bytes)) throw new BlockError('INVALID_ARGUMENT', 'size of ringbuf chardev must be power of two');
  return bytes;
}

export function unknownBackend(type: string): BlockError {
  return (BACKEND_NAMES as readonly string[]).includes(type)
    ? new BlockError('NOT_SUPPORTED', `character devices of type '${type}' are not available`)
    : new BlockError('INVALID_ARGUMENT', `'${type}' is not a valid char driver name`);
}

function socketConfig(daemon: StorageDaemon, data: JsonDict): ChardevConfig {
  const server = data['server'] !== false;
  refuseSocketOptions(daemon, data, server);
  return {
    kind: 'socket', address: receivedSocketAddress(data['addr'] as JsonDict), server, wait: data['wait'] === true, reconnectSeconds: Number(data['reconnect'] ?? 0),
  };
}

/** What does not go together, under QAPI's names; in QEMU's order. */
export function refuseSocketOptions({ objects }: StorageDaemon, options: JsonDict, server: boolean): void {
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  const creds = options['tls-creds'] as string | undefined;
  if (server && options['reconnect'] !== undefined) refuse("'reconnect' option is incompatible with socket in server listen mode");
  if (!server && options['websocket'] === true) refuse('Websocket client is not implemented');
  if (!server && options['wait'] !== undefined) refuse("'wait' option is incompatible with socket in client connect mode");
  if (options['tls-authz'] !== undefined && creds === undefined) refuse("'tls_authz' option requires 'tls_creds' option");
  if (creds !== undefined && objects.typeOf(creds) === undefined) refuse(`No TLS credentials with id '${creds}'`);
  const lacking = creds !== undefined ? 'tls-creds' : ['telnet', 'tn3270', 'websocket'].find((name) => options[name] === true);
  if (lacking !== undefined) throw new BlockError('NOT_SUPPORTED', `'${lacking}' is not available for character devices`);
}
