/** What a server tells of itself and its exports, for `nbd info`: nothing is opened where the server can tell without. */
import { BlockError } from '../base/errors.js';
import { ClientSocket, type NbdAddress } from './client-socket.js';
import { HandshakeWire } from './client-wire.js';
import { greet, OptionPhase, peerRefused, type ExportInfo, type NegotiateOptions } from './handshake-client.js';
import { Option } from './protocol.js';

export interface NbdFactsOptions {
  readonly address: NbdAddress;
  /** The one export to tell of; left out, all that the server lists. */
  readonly exportName?: string | undefined;
  readonly tls?: NegotiateOptions['tls'] | undefined;
  /** Default 10 s, for all of it. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface NbdExportFacts {
  readonly name: string;
  readonly description: string | null;
  /** Null where the server would not tell of this export; `error` then says why. */
  readonly info: ExportInfo | null;
  readonly error: BlockError | null;
  /** Names of the contexts that BLOCK_STATUS can tell. */
  readonly contexts: readonly string[];
}

export interface NbdServerFacts {
  readonly protocol: 'newstyle-fixed' | 'newstyle' | 'oldstyle';
  readonly tls: boolean;
  readonly structuredReplies: boolean;
  readonly exports: readonly NbdExportFacts[];
}

const TIMEOUT_MS = 10_000;

export async function nbdServerFacts(options: NbdFactsOptions): Promise<NbdServerFacts> {
  const { timeoutMs = TIMEOUT_MS, tls = null, signal } = options;
  const socket = await ClientSocket.connect(options.address, tls !== null, { timeoutMs, signal });
  const wire = new HandshakeWire(socket, timeoutMs);
  const stop = (): void => socket.destroy(new BlockError('CANCELLED', `asking '${socket.name}' was cancelled`, { node: socket.name, cause: signal?.reason }));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await ask(wire, tls, options.exportName);
  } finally {
    signal?.removeEventListener('abort', stop);
    wire.release();
    await socket.finish(100);
  }
}

async function ask(wire: HandshakeWire, tls: NegotiateOptions['tls'], exportName: string | undefined): Promise<NbdServerFacts> {
  const server = await greet(wire);
  const wanted = exportName ?? '';
  if (!(server instanceof OptionPhase)) {
    if (tls !== null) throw peerRefused(wire, 'Server does not support STARTTLS');
    return { protocol: 'oldstyle', tls: false, structuredReplies: false, exports: [opened(wanted, server)] };
  }
  if (tls !== null) await server.startTls(tls);
  const common = { protocol: server.fixed ? 'newstyle-fixed' : 'newstyle', tls: tls !== null } as const;
  if (!server.fixed) return { ...common, structuredReplies: false, exports: [opened(wanted, await server.exportName(wanted))] };
  await server.requestStructuredReplies();
  const names = exportName === undefined ? await server.list() : [{ name: exportName, description: null }];
  const exports: NbdExportFacts[] = [];
  for (const { name, description } of names) exports.push(await factsOf(server, name, description));
  const { structuredReplies } = server;
  if (exports.some((one) => one.info === null && one.error === null)) {
    // A server without INFO: only opening an export tells of it, and then no other one can be asked for
    return { ...common, structuredReplies, exports: names.length === 1 ? [opened(names[0]!.name, await server.exportName(names[0]!.name))] : exports };
  }
  server.abort();
  return { ...common, structuredReplies, exports };
}

async function factsOf(server: OptionPhase, name: string, description: string | null): Promise<NbdExportFacts> {
  try {
    const info = await server.info(Option.INFO, name);
    const contexts = info === null ? [] : [...(await server.metaContexts(Option.LIST_META_CONTEXT, name, [])).keys()];
    return { name, description: info?.description ?? description, info, error: null, contexts };
  } catch (error) {
    if (error instanceof BlockError && (error.code === 'PEER' || error.code === 'NOT_FOUND')) return { name, description, info: null, error, contexts: [] };
    throw error;
  }
}

function opened(name: string, info: ExportInfo): NbdExportFacts {
  return { name, description: info.description, info, error: null, contexts: [] };
}
