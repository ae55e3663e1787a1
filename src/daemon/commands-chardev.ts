/** QMP: character devices. */
import { BlockError } from '../base/errors.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { legacySocketAddress } from './address.js';
import type { ChardevConfig } from './chardev.js';
import type { StorageDaemon } from './daemon.js';

/** QEMU's list, in its order. */
export const BACKEND_NAMES = ['pty', 'udp', 'memory', 'file', 'socket', 'stdio', 'ringbuf', 'null', 'parallel', 'pipe', 'mux', 'serial'] as const;

export const RING_BYTES = 65_536;

export function chardevCommands(daemon: StorageDaemon): CommandTable {
  const { chardevs } = daemon;
  return {
    'query-chardev': () => [...chardevs.values()].reverse().map((chardev) => ({
      label: chardev.id, filename: chardev.filename(), 'frontend-open': chardev.frontend !== null,
    })),
    'query-chardev-backends': () => BACKEND_NAMES.map((name) => ({ name })),
    'chardev-add': async ({ id, backend }) => {
      await chardevs.add(id as string, chardevConfig(backend as JsonDict));
      return {};
    },
    'chardev-remove': ({ id }) => chardevs.remove(id as string),
  };
}

/** Of a ChardevBackend that the schema has checked. */
function chardevConfig(backend: JsonDict): ChardevConfig {
  const data = backend['data'] as JsonDict;
  switch (backend['type']) {
    case 'null': return { kind: 'null' };
    case 'ringbuf':
    case 'memory': return { kind: 'ringbuf', bytes: Number(data['size'] ?? RING_BYTES) };
    case 'socket': return {
      kind: 'socket', address: legacySocketAddress(data['addr'] as JsonDict), server: data['server'] !== false, wait: data['wait'] === true,
      reconnectSeconds: Number(data['reconnect'] ?? 0),
    };
    default: throw new BlockError('NOT_SUPPORTED', `character devices of type '${(backend['type'] as string)}' are not available`);
  }
}
