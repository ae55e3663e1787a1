/** An NBD server for one image, from the first socket to the last close: what quiesce-nbd and `quiesce nbd serve` share. */
import { rmSync } from 'node:fs';
import {
  BlockExports, BlockGraph, type BlockNode, type CacheModeName, type NbdExportRequest, type NbdListenAddress, type OptionTree, type TlsCredentials,
} from '../../src/index.js';

const EXPORT_ID = 'qemu-nbd-export';

interface NbdSession {
  readonly address: NbdListenAddress;
  readonly tls: TlsCredentials | null;
  /** Whether a client with a certificate of this subject may connect. */
  readonly authorize?: ((subject: string) => boolean) | null | undefined;
  /** Clients at once; 0 for any number. */
  readonly maxConnections: number;
  /** Stay when the last client has gone. */
  readonly persistent: boolean;
  readonly exported: Omit<NbdExportRequest, 'id' | 'nodeName'>;
  readonly onProblem?: ((why: string) => void) | undefined;
  open(graph: BlockGraph): Promise<BlockNode>;
  /** Clients can connect. Told the TCP port, null for other sockets. */
  ready(port: number | null): void;
  /** Aborted by whoever wants it to end. */
  readonly stop: AbortSignal;
}

/** Resolves when it was stopped or the last client has gone, and all is written and closed. */
export async function serveImage(session: NbdSession): Promise<void> {
  const { stop, address } = session;
  const ended = new AbortController();
  const end = (): void => ended.abort();
  const done = new Promise<void>((resolve) => ended.signal.addEventListener('abort', () => resolve(), { once: true }));
  stop.addEventListener('abort', end, { once: true });
  if (stop.aborted) end();
  const graph = new BlockGraph();
  const exports = new BlockExports(graph, { deleted: () => undefined }, {
    onDisconnect: (connections, negotiated) => {
      if (negotiated && connections === 0 && !session.persistent) end();
    },
    onProblem: session.onProblem,
  });
  let listens = false;
  try {
    const port = await exports.startServer({ address, tls: session.tls, authorize: session.authorize, maxConnections: session.maxConnections, held: true });
    listens = true;
    const node = await session.open(graph);
    await exports.add({ ...session.exported, id: EXPORT_ID, nodeName: node.nodeName });
    exports.admit();
    session.ready(port);
    await done;
  } finally {
    stop.removeEventListener('abort', end);
    await exports.close();
    await graph.closeAll();
    if (listens && 'unix' in address) rmSync(address.unix, { force: true });
  }
}

/** BlockdevOptions of a cache mode. What makes a mode write through is the export's. */
export function cacheOptions(mode: CacheModeName | 'off'): OptionTree {
  return {
    'cache.direct': mode === 'none' || mode === 'off' || mode === 'directsync',
    'cache.no-flush': mode === 'unsafe',
  };
}

export function isWritethrough(mode: CacheModeName | 'off' | null | undefined): boolean {
  return mode === 'writethrough' || mode === 'directsync';
}
