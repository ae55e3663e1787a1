/** QMP: character devices. */
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { legacySocketAddress } from './address.js';
import type { ChardevConfig } from './chardev.js';
import type { StorageDaemon } from './daemon.js';
import type { RingBuffer } from './ring-buffer.js';

/** QEMU's list, in its order. */
export const BACKEND_NAMES = ['serial', 'mux', 'pipe', 'parallel', 'null', 'ringbuf', 'stdio', 'socket', 'file', 'memory', 'udp', 'pty'] as const;

export const RING_BYTES = 65_536;

export function chardevCommands(daemon: StorageDaemon): CommandTable {
  const { chardevs } = daemon;
  return {
    'query-chardev': () => chardevs.inOrder().map((chardev) => ({
      label: chardev.id, filename: chardev.filename(), 'frontend-open': chardev.frontend !== null,
    })),
    'query-chardev-backends': () => BACKEND_NAMES.map((name) => ({ name })),
    'chardev-add': (args) => addChardev(daemon, args),
    'chardev-change': async ({ id, backend }) => {
      const old = chardevs.find(id as string);
      if (old === undefined) throw new BlockError('NOT_FOUND', `Chardev '${id as string}' does not exist`);
      if (old.frontend !== null) throw new BlockError('BUSY', 'Chardev user does not support chardev hotswap');
      await chardevs.replace(id as string, chardevConfig(id as string, backend as JsonDict));
    },
    // a break is for serial lines
    'chardev-send-break': ({ id }) => { chardevs.get(id as string); },
    'ringbuf-write': ({ device, data, format }) => ringOf(daemon, device as string).write(Buffer.from(data as string, encoding(format))),
    'ringbuf-read': ({ device, size, format }) => {
      const ring = ringOf(daemon, device as string);
      if (Number(size) <= 0) throw new BlockError('INVALID_ARGUMENT', 'size must be greater than zero');
      return ring.read(Number(size)).toString(encoding(format));
    },
    'chardev-remove': ({ id }) => chardevs.remove(id as string),
  };
}

/** `options`: the arguments of `chardev-add`, checked by the schema. */
export async function addChardev({ chardevs }: StorageDaemon, { id, backend }: JsonDict): Promise<void> {
  if (chardevs.find(id as string) !== undefined) throw new BlockError('EXISTS', `Chardev with id '${id as string}' already exists`);
  await chardevs.add(id as string, chardevConfig(id as string, backend as JsonDict));
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
function chardevConfig(id: string, backend: JsonDict): ChardevConfig {
  const data = backend['data'] as JsonDict;
  switch (backend['type']) {
    case 'null': return { kind: 'null' };
    case 'ringbuf':
    case 'memory': {
      const bytes = Number(data['size'] ?? RING_BYTES);
      if (!isPowerOfTwo(bytes)) throw new BlockError('INVALID_ARGUMENT', `Failed to add chardev '${id}': size of ringbuf chardev must be power of two`);
      return { kind: 'ringbuf', bytes };
    }
    case 'socket': return {
      kind: 'socket', address: legacySocketAddress(data['addr'] as JsonDict), server: data['server'] !== false, wait: data['wait'] === true,
      reconnectSeconds: Number(data['reconnect'] ?? 0),
    };
    default: throw new BlockError('NOT_SUPPORTED', `character devices of type '${(backend['type'] as string)}' are not available`);
  }
}
