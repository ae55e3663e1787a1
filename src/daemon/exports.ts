/** The exports of one process, by id, and the NBD server that serves them. */
import { systemClock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import type { DirtyBitmap } from '../block/dirty-bitmap.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import type { NbdExport } from '../nbd/export.js';
import type { NbdListenAddress } from '../nbd/listen.js';
import { NbdServer, type NbdServerOptions } from '../nbd/server.js';
import type { TlsCredentials } from '../nbd/tls.js';
import { isWellFormedId } from './ids.js';
import { FailureLog, SILENT, type DaemonLog } from './log.js';

const MAX_STRING = 4096;

/** A bitmap of the exported node or one below it, or of any node by name. */
export type ExportBitmapName = string | { readonly node: string; readonly name: string };

export interface NbdExportRequest {
  readonly id: string;
  readonly nodeName: string;
  /** Default: the node's name. */
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly writable?: boolean | undefined;
  /** Every write is on stable storage before it is answered. */
  readonly writethrough?: boolean | undefined;
  readonly bitmaps?: readonly ExportBitmapName[] | undefined;
  readonly allocationDepth?: boolean | undefined;
}

interface Export {
  readonly id: string;
  readonly name: string;
  readonly backend: BlockBackend;
  readonly bitmaps: readonly DirtyBitmap[];
  shuttingDown: boolean;
}

export interface BlockExportInfo {
  readonly id: string;
  readonly nodeName: string;
  readonly shuttingDown: boolean;
}

export interface StartNbdServer {
  readonly address: NbdListenAddress;
  readonly tls?: TlsCredentials | null | undefined;
  /** Whether a client whose certificate has such a subject may connect. */
  readonly authorize?: ((subject: string) => boolean) | null | undefined;
  /** 0 for any number. */
  readonly maxConnections?: number | undefined;
  /** Clients wait until `admit`. */
  readonly held?: boolean | undefined;
}

export interface ExportListener {
  /** Before an export that no client uses any more lets go of its node. */
  detaching?(node: BlockNode): Promise<void>;
  /** Nobody uses it any more. */
  deleted(id: string): void;
}

export class BlockExports {
  readonly #graph: BlockGraph;
  readonly #listener: ExportListener;
  readonly #serverOptions: NbdServerOptions;
  readonly #log: DaemonLog;
  readonly #exports = new Map<string, Export>();
  #server: NbdServer | null = null;
  #maxConnections = 0;

  constructor(graph: BlockGraph, listener: ExportListener, serverOptions: NbdServerOptions = {}, log: DaemonLog = SILENT) {
    this.#log = log;
    this.#graph = graph;
    this.#listener = listener;
    this.#serverOptions = serverOptions;
  }

  get serving(): boolean { return this.#server !== null; }

  /** Resolves with the TCP port, null for other sockets. */
  async startServer({ address, tls, authorize, maxConnections = 0, held }: StartNbdServer): Promise<number | null> {
    if (this.#server !== null) throw new BlockError('EXISTS', 'NBD server already running');
    const server = new NbdServer({
      onProblem: (why) => this.#log.warn({ why }, 'client lost'), ...this.#serverOptions, tls, authorize, maxConnections, held,
    });
    const port = await server.listen(address);
    this.#log.info({ ...address, ...port === null ? {} : { port }, tls: tls?.kind ?? null }, 'nbd server listens');
    this.#server = server;
    this.#maxConnections = maxConnections;
    return port;
  }

  /** Lets in the clients of a server that was started `held`. */
  admit(): void {
    this.#runningServer().admit();
  }

  /** Ends all exports and connections. */
  async stopServer(): Promise<void> {
    const server = this.#runningServer();
    this.#server = null;
    await server.close();
    this.#log.info({}, 'nbd server stopped');
    for (const exported of this.#newestFirst()) await this.#finish(exported);
  }

  /** What is refused of an export of any type, before its server is asked. */
  checked({ id, nodeName, writable = false }: Pick<NbdExportRequest, 'id' | 'nodeName' | 'writable'>): BlockNode {
    if (!isWellFormedId(id)) throw invalid('Invalid block export id');
    if (this.#exports.has(id)) throw new BlockError('EXISTS', `Block export id '${id}' is already in use`);
    const node = this.#graph.find(nodeName);
    if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='' nor node-name='${nodeName}'`);
    if (writable && node.readOnly) throw new BlockError('READ_ONLY', 'Cannot export read-only node as writable');
    return node;
  }

  async add(request: NbdExportRequest): Promise<void> {
    const { id, nodeName, writable = false, description } = request;
    const node = this.checked(request);
    const backend = await this.#graph.attach(node, {
      used: Permission.CONSISTENT_READ | (writable ? Permission.WRITE : 0), shared: Permission.ALL & ~Permission.RESIZE,
    });
    backend.writethrough = request.writethrough ?? false;
    try {
      const server = this.#runningServer();
      const name = request.name ?? nodeName;
      checkNames(name, description);
      for (const { name: taken } of server.exports()) {
        if (taken === name) throw new BlockError('EXISTS', `NBD server already has export named '${name}'`);
      }
      const bitmaps = this.#bitmaps(node, writable, request.bitmaps ?? []);
      server.addExport({
        name, description: description ?? null, backend, readOnly: !writable, multiConn: this.#maxConnections !== 1, bitmaps,
        allocationDepth: request.allocationDepth ?? false,
        ...this.#toLog(id, name, node.nodeName),
      });
      for (const bitmap of bitmaps) bitmap.busy = true;
      this.#exports.set(id, { id, name, backend, bitmaps, shuttingDown: false });
      this.#log.info({ export: id, 'export-name': name, node: nodeName, writable }, 'export added');
    } catch (error) {
      await this.#listener.detaching?.(node);
      await this.#graph.detach(backend);
      throw error;
    }
  }

  /** Resolves when no client is left, with the mode `hard`; refuses where one is, with `safe`. */
  async remove(id: string, mode: 'safe' | 'hard'): Promise<void> {
    const exported = this.#exports.get(id);
    if (exported === undefined) throw new BlockError('NOT_FOUND', `Export '${id}' is not found`);
    if (exported.shuttingDown) throw new BlockError('BUSY', `Export '${id}' is already shutting down`);
    if (mode === 'safe' && this.#server!.clientsOf(exported.name) > 0) throw new BlockError('BUSY', `export '${id}' still in use`);
    exported.shuttingDown = true;
    await this.#server!.removeExport(exported.name, mode);
    await this.#finish(exported);
  }

  /** Newest first. */
  list(): BlockExportInfo[] {
    return this.#newestFirst().map(({ id, backend, shuttingDown }) => ({ id, nodeName: backend.node.nodeName, shuttingDown }));
  }

  /** For the end of the process. */
  async close(): Promise<void> {
    if (this.#server !== null) await this.stopServer();
  }

  #toLog(id: string, name: string, node: string): Pick<NbdExport, 'onConnect' | 'onDisconnect' | 'onFailure'> {
    const failures = new FailureLog(this.#log, this.#serverOptions.clock ?? systemClock, { export: id, node });
    return {
      onConnect: (client) => this.#log.info({ export: id, 'export-name': name, ...client }, 'client connected'),
      onDisconnect: (client) => this.#log.info({ export: id, 'export-name': name, ...client }, 'client gone'),
      onFailure: (failure) => failures.add(failure),
    };
  }

  #newestFirst(): Export[] {
    return [...this.#exports.values()].reverse();
  }

  async #finish(exported: Export): Promise<void> {
    for (const bitmap of exported.bitmaps) bitmap.busy = false;
    this.#exports.delete(exported.id);
    await this.#listener.detaching?.(exported.backend.node);
    await this.#graph.detach(exported.backend);
    this.#log.info({ export: exported.id, 'export-name': exported.name }, 'export removed');
    this.#listener.deleted(exported.id);
  }

  #runningServer(): NbdServer {
    if (this.#server === null) throw invalid('NBD server not running');
    return this.#server;
  }

  #bitmaps(node: BlockNode, writable: boolean, wanted: readonly ExportBitmapName[]): DirtyBitmap[] {
    return wanted.map((one) => {
      const { bitmap, holder } = typeof one === 'string' ? findBelow(node, one) : this.#bitmapOf(one);
      bitmap.check('busy', 'inconsistent');
      // who names the node knows that its writes go on
      const grows = typeof one === 'string' && !holder.readOnly && bitmap.enabled;
      if (!writable && grows) throw invalid(`Enabled bitmap '${bitmap.name}' incompatible with readonly export`);
      return bitmap;
    });
  }

  #bitmapOf({ node, name }: Exclude<ExportBitmapName, string>): Found {
    const holder = this.#graph.find(node);
    if (holder === undefined) throw new BlockError('NOT_FOUND', `Node '${node}' not found`);
    const bitmap = holder.bitmaps.get(name);
    if (bitmap === undefined) throw new BlockError('NOT_FOUND', `Dirty bitmap '${name}' not found`);
    return { bitmap, holder };
  }
}

interface Found {
  readonly bitmap: DirtyBitmap;
  readonly holder: BlockNode;
}

/** In the node itself or in what it filters or overlays. */
function findBelow(top: BlockNode, name: string): Found {
  for (let holder: BlockNode | undefined = top; holder !== undefined; holder = nextBelow(holder)) {
    const bitmap = holder.bitmaps.get(name);
    if (bitmap !== undefined) return { bitmap, holder };
  }
  throw new BlockError('NOT_FOUND', `Bitmap '${name}' is not found`);
}

function nextBelow(node: BlockNode): BlockNode | undefined {
  return node.children.find(({ role }) => role === 'filtered' || role === 'backing')?.node;
}

function checkNames(name: string, description: string | undefined): void {
  if (Buffer.byteLength(name) > MAX_STRING) throw invalid(`export name '${name}' too long`);
  if (description !== undefined && Buffer.byteLength(description) > MAX_STRING) throw invalid(`description '${description}' too long`);
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
