/** An NBD server: listening sockets, exports, and the connections between them. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { BufferPool } from '../base/buffer-pool.js';
import { MiB } from '../base/bytes.js';
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { Connection } from './connection.js';
import { ServedExport, type NbdExport } from './export.js';
import { MemoryShare } from './memory-share.js';
import { MAX_PAYLOAD } from './protocol.js';
import { StallWatch } from './stall-watch.js';
import { startListening, type NbdListenAddress } from './listen.js';
import type { TlsCredentials } from './tls.js';

const HANDSHAKE_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;
const STALL_TIMEOUT_MS = 30_000;
/** A client whose machine is gone is noticed some minutes after that. */
const KEEP_ALIVE_MS = 60_000;
const MAX_IN_FLIGHT = 64;
const BUFFER_BYTES = 64 * MiB;
/** A socket buffer of the kernel holds about so much. */
const INBOX_BYTES = MiB / 4;
/** Clients beyond `maxConnections` wait without a greeting, as they do in QEMU's listen backlog; more than these are turned away. */
const MAX_WAITING = 1024;

export interface NbdServerOptions {
  /** With credentials, a client must start TLS before anything else. */
  readonly tls?: TlsCredentials | null | undefined;
  /** Whether a client with such a certificate may connect, by its subject as QEMU's authz objects see it (`C=GB,CN=host`). */
  readonly authorize?: ((subject: string) => boolean) | null | undefined;
  /** Clients may connect and wait, without a greeting, until `admit`: for who listens before the exports are there. */
  readonly held?: boolean | undefined;
  /** Over all exports; 0 (default) for any number. */
  readonly maxConnections?: number | undefined;
  /** For the whole negotiation; 0 for no limit. Default 10 s. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** How long `close` waits for clients to take their last replies. */
  readonly closeTimeoutMs?: number | undefined;
  /** How long a client may hold buffers without a transfer while others wait for them; 0 for no limit. Default 30 s. */
  readonly stallTimeoutMs?: number | undefined;
  /** Requests of one connection that are carried out at once. */
  readonly maxInFlight?: number | undefined;
  /** For payloads of all connections, and of nobody else. It must hold the largest request (32 MiB). */
  readonly pool?: BufferPool | undefined;
  readonly clock?: Clock | undefined;
  /** A client was accepted; `connections` counts it. */
  onConnect?(connections: number): void;
  /** A client is gone, and all of its requests have ended. `negotiated` tells whether it had reached an export. */
  onDisconnect?(connections: number, negotiated: boolean): void;
  /** For a log: why a client was turned away or lost. */
  onProblem?(why: string): void;
}

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #pool: BufferPool;
  readonly #inbox = new Uint8Array(INBOX_BYTES);
  readonly #clock: Clock;
  readonly #servers = new Set<Server>();
  /** By the bytes of the name (as latin1), in the order they were added. */
  readonly #exports = new Map<string, ServedExport>();
  readonly #connections = new Set<Connection>();
  readonly #waiting: Socket[] = [];
  readonly #stalls: StallWatch;
  #maxConnections: number;
  #held: boolean;
  #closing: Promise<void> | null = null;

  constructor(options: NbdServerOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#pool = options.pool ?? new BufferPool(BUFFER_BYTES);
    this.#maxConnections = options.maxConnections ?? 0;
    this.#held = options.held ?? false;
    this.#stalls = new StallWatch(this.#connections, this.#clock, options.stallTimeoutMs ?? STALL_TIMEOUT_MS);
    if (this.#pool.bytes < MAX_PAYLOAD) throw new BlockError('INVALID_ARGUMENT', `an NBD server needs ${MAX_PAYLOAD} bytes of buffers, not ${this.#pool.bytes}`);
  }

  /** Clients connected now. */
  get connections(): number { return this.#connections.size; }

  /** Those of one export. */
  clientsOf(name: string): number { return this.#exports.get(keyOf(Buffer.from(name)))?.users.size ?? 0; }

  *exports(): Generator<NbdExport> {
    for (const { source } of this.#exports.values()) yield source;
  }

  /** From now on clients may choose it. Its size stays what it is now. */
  addExport(source: NbdExport): void {
    const served = new ServedExport(source);
    const key = keyOf(served.name);
    if (this.#exports.has(key)) throw new BlockError('EXISTS', `NBD server already has export named '${source.name}'`);
    this.#exports.set(key, served);
  }

  /** `safe` refuses while clients use it; `hard` drops them. Resolves when nobody uses the backend through it any more. */
  async removeExport(name: string, mode: 'safe' | 'hard'): Promise<void> {
    const key = keyOf(Buffer.from(name));
    const served = this.#exports.get(key);
    if (served === undefined) throw new BlockError('NOT_FOUND', `Export '${name}' is not found`);
    if (mode === 'safe' && served.users.size > 0) throw new BlockError('BUSY', `export '${name}' still in use`);
    this.#exports.delete(key);
    await Promise.all([...served.users].map((user) => user.drop()));
  }

  /** Resolves when clients can connect, with the TCP port that was taken (null for others). */
  async listen(address: NbdListenAddress): Promise<number | null> {
    if (this.#closing !== null) throw new BlockError('CLOSED', 'the NBD server is closed');
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, pauseOnConnect: true }, (socket) => this.#accept(socket));
    await startListening(server, address);
    server.on('error', (error) => this.#options.onProblem?.(`accepting connections failed: ${error.message}`));
    this.#servers.add(server);
    return 'port' in address ? (server.address() as AddressInfo).port : null;
  }

  /** Lets in the clients that `held` kept waiting. */
  admit(): void {
    this.#held = false;
    this.#startWaiting();
  }

  /** Stops listening, answers what is under way, and ends all connections. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    const ended = Promise.all([...this.#connections].map((connection) => connection.close()));
    const timer = new AbortController();
    const timeout = this.#clock.sleep(this.#options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS, timer.signal);
    await Promise.race([ended, timeout]);
    timer.abort();
    await Promise.all([...this.#connections].map((connection) => connection.drop()));
    this.#stalls.end();
    this.#exports.clear();
  }

  #accept(socket: Socket): void {
    if (this.#closing !== null) {
      socket.destroy();
    } else if (this.#hasRoom()) {
      this.#start(socket);
    } else if (this.#waiting.length < MAX_WAITING) {
      socket.once('error', () => undefined);
      this.#waiting.push(socket);
    } else {
      socket.destroy();
    }
  }

  #start(socket: Socket): void {
    const { tls, handshakeTimeoutMs, maxInFlight } = this.#options;
    this.#connections.add(new Connection({
      socket, tls: tls ?? null, authorize: this.#options.authorize ?? null, clock: this.#clock, inbox: this.#inbox,
      memory: new MemoryShare(this.#pool, () => this.#stalls.begin()),
      handshakeTimeoutMs: handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
      maxInFlight: maxInFlight ?? MAX_IN_FLIGHT,
      find: (name) => this.#exports.get(keyOf(name)),
      list: () => this.#exports.values(),
      onProblem: (why) => this.#options.onProblem?.(why),
      onClosed: (connection, negotiated) => this.#closed(connection, negotiated),
    }));
    this.#options.onConnect?.(this.#connections.size);
  }

  #closed(connection: Connection, negotiated: boolean): void {
    this.#connections.delete(connection);
    this.#options.onDisconnect?.(this.#connections.size, negotiated);
    this.#startWaiting();
  }

  #hasRoom(): boolean {
    return !this.#held && (this.#maxConnections === 0 || this.#connections.size < this.#maxConnections);
  }

  #startWaiting(): void {
    while (this.#closing === null && this.#waiting.length > 0 && this.#hasRoom()) {
      const socket = this.#waiting.shift()!;
      if (!socket.destroyed) this.#start(socket);
    }
  }
}

function keyOf(name: Buffer): string {
  return name.toString('latin1');
}
