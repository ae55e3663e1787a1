/**
 * The connections of one client: shares requests out among them, and finds the server again after it was lost.
 *
 * What happens to requests whose reply never came: reads, flushes, cache hints and block status change nothing, so they
 * are sent again wherever a connection is left or found again. Writes, zeroes and trims are sent again only where the
 * user asked for it with a reconnect delay, as QEMU does: they are idempotent and their caller has heard nothing of
 * them, but a server that lives on may still carry out the old one, late. The server found again must be the same: not
 * smaller, and nothing less in its flags, block sizes and contexts.
 *
 * Without a reconnect delay every flush after a loss fails where writes had completed that no flush had covered: the
 * server that is found again may never have seen them. With one, that is trusted to the server, as QEMU trusts it.
 */
import { systemClock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import { ClientConnection, type ConnectOptions } from './client-connection.js';
import type { NbdRequest } from './client-request.js';
import { addressText } from './client-socket.js';
import type { Negotiated } from './handshake-client.js';
import { Command, TransmissionFlag } from './protocol.js';

export interface PoolOptions extends Omit<ConnectOptions, 'timeoutMs'> {
  /** Most connections; more than one only where the server allows it (CAN_MULTI_CONN). Default 1. */
  readonly connections?: number | undefined;
  /** How long requests wait for a lost server before they fail. Default 0: they fail at once, and the next one tries again. */
  readonly reconnectDelayMs?: number | undefined;
  /** How long opening tries again where the server is not there. Default 0. */
  readonly openTimeoutMs?: number | undefined;
  /** Default 10 s, for the connection and again for the negotiation. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Ends opening; later, fails all that is under way with CANCELLED and leaves the server: a server may be silent for ever. */
  readonly signal?: AbortSignal | undefined;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;
/** Flags that the client may have come to rely on. */
const NEEDED_FLAGS = [
  TransmissionFlag.SEND_FLUSH, TransmissionFlag.SEND_FUA, TransmissionFlag.SEND_TRIM, TransmissionFlag.SEND_WRITE_ZEROES, TransmissionFlag.SEND_CACHE,
  TransmissionFlag.SEND_FAST_ZERO,
];
const CHANGING: readonly number[] = [Command.WRITE, Command.WRITE_ZEROES, Command.TRIM];

export class ClientPool {
  readonly name: string;
  readonly info: Negotiated;
  readonly #options: PoolOptions;
  readonly #live: ClientConnection[] = [];
  readonly #queue: NbdRequest[] = [];
  /** Ends attempts to connect. */
  readonly #abort = new AbortController();
  #reconnecting: Promise<void> | null = null;
  /** When requests stop waiting for the lost server; null while there is nothing to wait for. */
  #deadline: number | null = null;
  #failure: BlockError | null = null;
  /** Changes that the server confirmed, and how many of them a flush has covered. */
  #changes = 0;
  #flushed = 0;
  /** Nobody knows what became of confirmed writes: no later flush can make good for them. */
  #unflushedLost = false;
  #losses = 0;

  private constructor(options: PoolOptions, first: ClientConnection) {
    this.#options = options;
    this.name = first.name;
    this.info = first.info;
    this.#adopt(first);
    options.signal?.addEventListener('abort', this.#cancel, { once: true });
  }

  static async open(options: PoolOptions): Promise<ClientPool> {
    const expires = systemClock.monotonicMs() + (options.openTimeoutMs ?? 0);
    const first = await attempts(options, expires, options.signal);
    const pool = new ClientPool(options, first);
    await pool.#openMore();
    if (pool.#failure !== null) throw pool.#failure;
    return pool;
  }

  get connections(): number { return this.#live.length; }
  /** How often the server was lost with confirmed changes on it that no flush had covered. */
  get losses(): number { return this.#losses; }
  /** Whoever wrote what was lost writes it again: flushes may succeed. */
  forgiveLoss(): void { this.#unflushedLost = false; }
  /** Not over TCP, where it gains nothing; with TLS data has to be looked at; and what is sent again must be had again. */
  get canPipe(): boolean {
    const { address, tls, reconnectDelayMs = 0 } = this.#options;
    return address.type === 'unix' && tls === null && reconnectDelayMs === 0;
  }

  submit(request: NbdRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      request.resolve = resolve;
      request.reject = reject;
      this.#dispatch(request);
    });
  }

  async flush(request: NbdRequest): Promise<void> {
    if (this.#unflushedLost) {
      throw new BlockError('IO', `Could not flush '${this.name}': the connection was lost with writes on it that were not flushed yet`, { node: this.name, errno: 'EIO' });
    }
    const covered = this.#changes;
    await this.submit(request);
    this.#flushed = Math.max(this.#flushed, covered);
  }

  /** Nothing may be in flight. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener('abort', this.#cancel);
    this.#failure ??= new BlockError('CLOSED', `the NBD client of '${this.name}' is closed`, { node: this.name });
    this.#abort.abort();
    await this.#reconnecting;
    this.#rejectQueue(this.#failure);
    await Promise.all(this.#live.splice(0).map((connection) => connection.close()));
  }

  /** Fails what the server has not answered, and leaves it where there was anything; the next request looks for it again. */
  cancelInFlight(): void {
    const error = new BlockError('CANCELLED', `what was asked of '${this.name}' was cancelled`, { node: this.name, errno: 'ECANCELED' });
    this.#rejectQueue(error);
    for (const connection of this.#live.filter(({ inFlight }) => inFlight > 0)) {
      this.#live.splice(this.#live.indexOf(connection), 1);
      this.#noteLoss(true);
      connection.onDeath = (_error, unanswered) => { for (const request of unanswered) request.reject(error); };
      connection.destroy(error);
    }
  }

  readonly #cancel = (): void => {
    this.#abort.abort();
    this.#giveUp(new BlockError('CANCELLED', `what was asked of '${this.name}' was cancelled`, { node: this.name, cause: this.#options.signal?.reason }), []);
  };

  #dispatch(request: NbdRequest): void {
    if (this.#failure !== null) return request.reject(this.#failure);
    const connection = this.#queue.length === 0 ? this.#pick() : undefined;
    if (connection !== undefined) return connection.send(request);
    this.#queue.push(request);
    if (this.#live.length === 0) this.#reconnecting ??= this.#reconnect();
  }

  /** The connection with the fewest requests, if it has room. */
  #pick(): ClientConnection | undefined {
    let best = this.#live[0];
    for (const connection of this.#live) if (connection.inFlight < best!.inFlight) best = connection;
    return best?.hasRoom === true ? best : undefined;
  }

  #pump(): void {
    while (this.#queue.length > 0) {
      const connection = this.#pick();
      if (connection === undefined) return;
      connection.send(this.#queue.shift()!);
    }
  }

  #adopt(connection: ClientConnection): void {
    connection.onFinish = (request) => {
      if (request.error === null) {
        if (CHANGING.includes(request.command)) this.#changes++;
        request.resolve();
      } else {
        request.reject(request.error);
      }
      if (this.#queue.length > 0) this.#pump();
    };
    connection.onDeath = (error, unanswered) => this.#lost(connection, error, unanswered);
    this.#live.push(connection);
  }

  #lost(connection: ClientConnection, error: BlockError, unanswered: NbdRequest[]): void {
    const at = this.#live.indexOf(connection);
    if (at >= 0) this.#live.splice(at, 1);
    if (this.#failure !== null || error.code === 'PROTOCOL') return this.#giveUp(this.#failure ?? error, unanswered);
    const waits = (this.#options.reconnectDelayMs ?? 0) > 0;
    this.#noteLoss(!waits);
    const again: NbdRequest[] = [];
    for (const request of unanswered) {
      const resend = request.repeatable && (waits || (this.#live.length > 0 && !CHANGING.includes(request.command)));
      if (!resend) {
        request.reject(error);
        continue;
      }
      request.reset();
      again.push(request);
    }
    this.#queue.unshift(...again);
    if (this.#live.length > 0) this.#pump();
    else if (this.#queue.length > 0) this.#reconnecting ??= this.#reconnect();
  }

  /** A connection has gone. `tells`: flushes fail where it was the last one, with confirmed changes that none had covered. */
  #noteLoss(tells: boolean): void {
    if (this.#live.length > 0 || this.#changes === this.#flushed) return;
    this.#losses++;
    if (tells) this.#unflushedLost = true;
  }

  /** Nothing the server said can be trusted any more, or the client is closed. */
  #giveUp(error: BlockError, unanswered: readonly NbdRequest[]): void {
    this.#failure ??= error;
    for (const request of unanswered) request.reject(error);
    this.#rejectQueue(error);
    for (const connection of this.#live.splice(0)) connection.destroy(error);
  }

  #rejectQueue(error: unknown): void {
    for (const request of this.#queue.splice(0)) request.reject(error);
  }

  async #reconnect(): Promise<void> {
    this.#deadline ??= systemClock.monotonicMs() + (this.#options.reconnectDelayMs ?? 0);
    try {
      const connection = await attempts(this.#options, this.#deadline, this.#abort.signal);
      this.#reconnecting = null;
      const change = whatChanged(this.info, connection.info, this.#options.contexts);
      if (change !== null) {
        connection.destroy(new BlockError('CANCELLED', 'not the same export', { node: this.name }));
        return this.#giveUp(new BlockError('PEER', `'${this.name}' came back as another export: ${change}`, { node: this.name, errno: 'EIO' }), []);
      }
      this.#deadline = null;
      this.#adopt(connection);
      this.#pump();
      void this.#openMore();
    } catch (error) {
      this.#reconnecting = null;
      this.#rejectQueue(this.#failure ?? new BlockError('IO', `the connection to '${this.name}' is lost: ${messageOf(error)}`, { node: this.name, errno: 'EIO', cause: error }));
    }
  }

  /** The other connections; what cannot be had is done without. */
  async #openMore(): Promise<void> {
    const wanted = (this.info.flags & TransmissionFlag.CAN_MULTI_CONN) === 0 ? 1 : this.#options.connections ?? 1;
    const missing = Math.max(0, wanted - this.#live.length);
    await Promise.all(Array.from({ length: missing }, async () => {
      const connection = await attempts(this.#options, 0, this.#abort.signal).catch(() => null);
      if (connection === null) return;
      if (this.#failure === null && !connection.dead && whatChanged(this.info, connection.info, this.#options.contexts) === null) this.#adopt(connection);
      else await connection.close();
    }));
  }
}

/** Connects, again and again until `expires` (of the system's clock). */
async function attempts(options: PoolOptions, expires: number, signal: AbortSignal | undefined): Promise<ClientConnection> {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const left = expires - systemClock.monotonicMs();
    const timeout = options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS;
    try {
      return await ClientConnection.open({ ...options, signal, timeoutMs: left > 0 ? Math.min(timeout, left) : timeout });
    } catch (error) {
      const rest = expires - systemClock.monotonicMs();
      if (rest <= 0 || isAborted(signal)) throw error;
      await systemClock.sleep(Math.min(pause, rest));
      if (isAborted(signal)) throw new BlockError('CANCELLED', `connecting to '${addressText(options.address)}' was cancelled`, { cause: signal?.reason });
    }
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** Why requests made for `before` cannot go to `now`, or null. */
function whatChanged(before: Negotiated, now: Negotiated, contexts: readonly string[]): string | null {
  if (now.size < before.size) return `it has ${now.size} bytes, and had ${before.size}`;
  const lost = NEEDED_FLAGS.find((flag) => (before.flags & flag) !== 0 && (now.flags & flag) === 0);
  if (lost !== undefined) return `it lost a capability (flag 0x${lost.toString(16)})`;
  if ((before.flags & TransmissionFlag.READ_ONLY) === 0 && (now.flags & TransmissionFlag.READ_ONLY) !== 0) return 'it became read-only';
  if (Math.max(now.minimumBlock, 1) > Math.max(before.minimumBlock, 1) || now.maximumBlock < before.maximumBlock) return 'its block sizes are narrower';
  const missing = contexts.find((context) => before.contexts.has(context) && !now.contexts.has(context));
  return missing === undefined ? null : `it lost the context '${missing}'`;
}
