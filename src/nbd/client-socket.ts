/** The client's end of one socket: connects, batches what is sent, and hands on what comes in without keeping it. */
import { connect, type Socket } from 'node:net';
import { KiB, MiB } from '../base/bytes.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import { setSendBuffer } from '../base/libc.js';
import type { PipeBuffer } from '../base/pipe-buffer.js';
import { startTlsClient, type TlsCredentials } from './tls.js';

/** A path that starts with NUL is a name in Linux's abstract namespace. */
export type NbdAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: number };

interface ConnectLimits {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** One large buffer for all that is read takes fewer system calls than Node's 64 KiB pieces, and no garbage collection. */
const READ_BUFFER = 512 * KiB;
/** What is read into it while large payloads come, which then go where they belong without a stop there. */
const SHORT_READ = 4 * KiB;
/** What a structured read's payload has before it. */
const HEAD_READ = 28;
const STAGING = 64 * KiB;
/** Payloads up to this are copied beside their header: cheaper than one more element for writev. */
const COPY_BELOW = 16 * KiB;
/** So that a whole request leaves in one system call: Linux's default takes several, each with a wait. */
const SEND_BUFFER = 2 * MiB;

export function addressText(address: NbdAddress): string {
  if (address.type === 'unix') return address.path.startsWith('\0') ? `@${address.path.slice(1)}` : address.path;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function connectFailure(error: unknown, name: string): BlockError {
  const errno = errnoOf(error);
  if (errno !== 'ENOTFOUND' && errno !== 'EAI_AGAIN') return wrapHostError(error, `Failed to connect to '${name}'`, { node: name });
  const why = errno === 'ENOTFOUND' ? 'Name or service not known' : 'Temporary failure in name resolution';
  return new BlockError('IO', `address resolution failed for ${name}: ${why}`, { node: name, errno: 'EIO', cause: error });
}

/** The memory that a socket of this host may fill before its reader has read. The reader then works on while this process does something else. */
function widen(socket: Socket): void {
  const fd = descriptorOf(socket);
  if (fd >= 0) setSendBuffer(fd, SEND_BUFFER);
}

/** -1 where there is none any more, or where this Node does not tell. */
function descriptorOf(socket: Socket): number {
  // no public name exists for it; its absence costs speed only
  const fd = (socket as unknown as { readonly _handle?: { readonly fd?: unknown } | null })._handle?.fd;
  return typeof fd === 'number' ? fd : -1;
}

export class ClientSocket {
  readonly name: string;
  /** Takes each piece that arrives; the piece is only valid during the call. May throw, which ends the connection. */
  onData: (piece: Buffer) => void = () => {};
  /**
   * Where the next bytes are best put: in the memory given, of which `onDirect` then tells; or where a header comes before a
   * large payload (`short`), no byte of which should come along (`head`).
   */
  wants: () => Uint8Array | 'short' | 'head' | null = () => null;
  /** So many bytes have come into the memory that `wants` gave. */
  onDirect: (bytes: number) => void = () => {};
  /** Told once, when the connection has ended for whatever reason. */
  onEnd: (error: BlockError) => void = () => {};
  #socket: Socket;
  #ended: BlockError | null = null;
  #pieces: (Uint8Array | PipeBuffer)[] = [];
  /** What is in a pipe waits until the socket takes more. */
  #full = false;
  #staging: Buffer = Buffer.alloc(0);
  /** What of the staging buffer is in `#pieces` already, and how much is filled. */
  #stagedFrom = 0;
  #stagedTo = 0;
  #flushing = false;
  /** A Unix socket with the host's default of memory. */
  #narrow: boolean;
  #detach: () => void = () => {};

  private constructor(name: string, socket: Socket, local: boolean) {
    this.name = name;
    this.#socket = socket;
    this.#narrow = local;
  }

  /** Connects. `tls` tells that the socket will be upgraded, which needs Node's own reading. */
  static connect(address: NbdAddress, tls: boolean, limits: ConnectLimits): Promise<ClientSocket> {
    const name = addressText(address);
    return new Promise((resolve, reject) => {
      let opened: ClientSocket | null = null;
      const where = address.type === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
      const memory = Buffer.allocUnsafeSlow(tls ? 0 : READ_BUFFER);
      const short = memory.subarray(0, SHORT_READ);
      const head = memory.subarray(0, HEAD_READ);
      const read = {
        buffer: (): Uint8Array => {
          const wanted = opened === null ? null : opened.wants();
          return wanted === null ? memory : wanted === 'short' ? short : wanted === 'head' ? head : wanted;
        },
        callback: (bytes: number, buffer: Uint8Array): boolean => {
          if (buffer === memory || buffer === short || buffer === head) opened!.#received(memory.subarray(0, bytes));
          else opened!.#direct(bytes);
          return true;
        },
      };
      const socket = connect({ ...where, ...(tls ? {} : { onread: read }) });
      const settle = (): void => {
        clearTimeout(timer);
        limits.signal?.removeEventListener('abort', stop);
        socket.off('error', fail);
      };
      const fail = (error: unknown): void => {
        settle();
        socket.on('error', () => {});
        socket.destroy();
        reject(connectFailure(error, name));
      };
      const stop = (): void => fail(new BlockError('CANCELLED', `connecting to '${name}' was cancelled`, { node: name, cause: limits.signal?.reason }));
      const timer = setTimeout(() => fail(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })), limits.timeoutMs);
      socket.once('error', fail);
      socket.once('connect', () => {
        settle();
        socket.setNoDelay(true);
        socket.setKeepAlive(true);
        opened = new ClientSocket(name, socket, address.type === 'unix' && !tls);
        opened.#listen(tls);
        resolve(opened);
      });
      if (limits.signal?.aborted === true) return stop();
      limits.signal?.addEventListener('abort', stop, { once: true });
    });
  }

  get ended(): boolean { return this.#ended !== null; }
  /** For host calls; -1 where it has none. */
  get descriptor(): number { return descriptorOf(this.#socket); }

  /** Upgrades the socket in place. What the server sends next is for the session, so nothing may be waiting to be read. */
  async startTls(credentials: TlsCredentials, hostname: string | null, timeoutMs: number): Promise<void> {
    this.#detach();
    this.#socket = await startTlsClient(this.#socket, credentials, hostname, timeoutMs);
    this.#listen(true);
  }

  /** Queues bytes; all that is queued in one turn of the event loop leaves in one system call. `bytes` is copied if small, else lent. */
  send(bytes: Uint8Array): void {
    if (bytes.byteLength > COPY_BELOW) this.#lend(bytes);
    else this.reserve(bytes.byteLength).set(bytes);
  }

  /** As send, with what the pipe holds. */
  sendPipe(pipe: PipeBuffer): void {
    this.#lend(pipe);
  }

  #lend(piece: Uint8Array | PipeBuffer): void {
    if (this.#narrow) {
      // not before a large payload is sent: most connections have none, and host calls take a while to load
      this.#narrow = false;
      widen(this.#socket);
    }
    this.#closeStaged();
    this.#pieces.push(piece);
  }

  /** Room for `bytes` (a header) to be filled in by the caller at once, sent after all that was queued before. */
  reserve(bytes: number): Buffer {
    if (this.#stagedTo + bytes > this.#staging.byteLength) {
      this.#closeStaged();
      this.#staging = Buffer.allocUnsafeSlow(STAGING);
      this.#stagedFrom = 0;
      this.#stagedTo = 0;
    }
    const room = this.#staging.subarray(this.#stagedTo, this.#stagedTo + bytes);
    this.#stagedTo += bytes;
    if (!this.#flushing) {
      this.#flushing = true;
      // runs after all continuations of this turn: their requests come along
      process.nextTick(() => this.flush());
    }
    return room;
  }

  flush(): void {
    this.#flushing = false;
    this.#closeStaged();
    if (this.#full) return;
    const pieces = this.#pieces;
    this.#pieces = [];
    const memory: Uint8Array[] = [];
    for (let index = 0; index < pieces.length && this.#ended === null; index++) {
      const piece = pieces[index]!;
      if (piece instanceof Uint8Array) {
        memory.push(piece);
        continue;
      }
      this.#write(memory.splice(0));
      if (this.#socket.writableLength === 0 && piece.push(this.descriptor)) continue;
      // Node waits until the socket takes a little of it, behind all that was sent before
      const some = piece.take();
      this.#pieces = pieces.slice(piece.left > 0 ? index : index + 1);
      this.#full = true;
      this.#socket.write(some, (error) => {
        this.#full = false;
        // else the connection has ended, or is about to
        if (error === null || error === undefined) this.flush();
      });
      return;
    }
    this.#write(memory);
  }

  #write(pieces: readonly Uint8Array[]): void {
    if (this.#ended !== null || pieces.length === 0) return;
    if (pieces.length > 1) this.#socket.cork();
    for (const piece of pieces) this.#socket.write(piece);
    if (pieces.length > 1) this.#socket.uncork();
  }

  pause(): void { this.#socket.pause(); }
  resume(): void { this.#socket.resume(); }

  /** Ends the connection at once, with this error for `onEnd`. */
  destroy(error: BlockError): void {
    this.#end(error);
    this.#socket.destroy();
  }

  /** Sends what is queued, and waits a moment for the server to close its side. */
  async finish(timeoutMs = 1000): Promise<void> {
    this.flush();
    this.#ended ??= new BlockError('CLOSED', `the connection to '${this.name}' is closed`, { node: this.name });
    const socket = this.#socket;
    if (socket.closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => socket.destroy(), timeoutMs);
      socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      socket.end();
    });
  }

  #closeStaged(): void {
    if (this.#stagedTo > this.#stagedFrom) this.#pieces.push(this.#staging.subarray(this.#stagedFrom, this.#stagedTo));
    this.#stagedFrom = this.#stagedTo;
  }

  #listen(events: boolean): void {
    const lost = (error?: unknown): void => {
      this.#end(error instanceof Error
        ? wrapHostError(error, `the connection to '${this.name}' failed`, { node: this.name, errno: 'EIO' })
        : new BlockError('IO', `'${this.name}' closed the connection`, { node: this.name, errno: 'EIO' }));
      this.#socket.destroy();
    };
    const closed = (): void => lost();
    const received = (piece: Buffer): void => this.#received(piece);
    const socket = this.#socket;
    socket.on('error', lost).on('end', closed).on('close', closed);
    if (events) socket.on('data', received);
    this.#detach = () => socket.off('error', lost).off('end', closed).off('close', closed).off('data', received);
  }

  #received(piece: Buffer): void {
    this.#take(() => this.onData(piece));
  }

  #direct(bytes: number): void {
    this.#take(() => this.onDirect(bytes));
  }

  #take(taken: () => void): void {
    if (this.#ended !== null) return;
    try {
      taken();
    } catch (error) {
      this.destroy(wrapHostError(error, `the connection to '${this.name}' failed`, { node: this.name, errno: 'EIO' }));
    }
  }

  #end(error: BlockError): void {
    if (this.#ended !== null) return;
    this.#ended = error;
    this.onEnd(error);
  }
}
