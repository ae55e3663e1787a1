/** One connection in the transmission phase: many requests in flight, told apart by their cookies. */
import { TWO_32 } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { NbdRequest } from './client-request.js';
import { ClientSocket, type NbdAddress } from './client-socket.js';
import { HandshakeWire } from './client-wire.js';
import { negotiate, type Negotiated, type NegotiateOptions } from './handshake-client.js';
import { Command, REQUEST_MAGIC } from './protocol.js';
import { ReplyParser, type ReplyHandler } from './reply-parser.js';

export interface ConnectOptions extends NegotiateOptions {
  readonly address: NbdAddress;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** More wait for a free slot: enough to keep any server busy, few enough to bound what is queued in the socket. */
const MAX_IN_FLIGHT = 64;
const REQUEST_BYTES = 28;

export class ClientConnection implements ReplyHandler {
  readonly name: string;
  readonly info: Negotiated;
  readonly structuredReplies: boolean;
  readonly contextNames: ReadonlyMap<number, string>;
  /** A request has got its last reply (or its error). */
  onFinish: (request: NbdRequest) => void = () => {};
  /** The connection has ended; `unanswered` may have been carried out or not. */
  onDeath: (error: BlockError, unanswered: NbdRequest[]) => void = () => {};
  readonly #socket: ClientSocket;
  readonly #slots: (NbdRequest | null)[] = [];
  /** Counts the uses of a slot: the upper half of its cookie, so that a reply that comes twice is noticed. */
  readonly #uses: number[] = [];
  readonly #free: number[] = [];
  #inFlight = 0;

  private constructor(socket: ClientSocket, info: Negotiated) {
    this.#socket = socket;
    this.name = socket.name;
    this.info = info;
    this.structuredReplies = info.structuredReplies;
    this.contextNames = new Map([...info.contexts].map(([context, id]) => [id, context]));
    const parser = new ReplyParser(this);
    socket.onData = (piece) => parser.consume(piece);
    socket.wants = () => parser.wants();
    socket.onDirect = (bytes) => parser.direct(bytes);
    socket.onEnd = (error) => this.#die(error);
  }

  /** Connects and negotiates, within `timeoutMs` for each of the two. */
  static async open(options: ConnectOptions): Promise<ClientConnection> {
    const socket = await ClientSocket.connect(options.address, options.tls !== null, options);
    const wire = new HandshakeWire(socket, options.timeoutMs);
    const stop = (): void => socket.destroy(cancelled(socket.name));
    options.signal?.addEventListener('abort', stop, { once: true });
    try {
      const info = await negotiate(wire, options);
      wire.release();
      const connection = new ClientConnection(socket, info);
      if (wire.unread > 0) throw strayBytes(socket.name);
      return connection;
    } catch (error) {
      wire.release();
      socket.destroy(cancelled(socket.name));
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', stop);
    }
  }

  get inFlight(): number { return this.#inFlight; }
  get dead(): boolean { return this.#socket.ended; }
  get hasRoom(): boolean { return this.#inFlight < MAX_IN_FLIGHT; }

  /** Sends it with the other requests of this turn. Only where `hasRoom`, and not `dead`. */
  send(request: NbdRequest): void {
    const slot = this.#free.pop() ?? this.#slots.length;
    this.#slots[slot] = request;
    this.#inFlight++;
    request.sent();
    this.#writeHeader(request.command, request.flags, this.#uses[slot] ??= 1, slot, request.offset, request.bytes);
    if (request.command !== Command.WRITE) return;
    if (request.pipe?.inKernel === true) this.#socket.sendPipe(request.pipe);
    else this.#socket.send(request.buffer!);
  }

  get descriptor(): number { return this.#socket.descriptor; }

  find(cookieHigh: number, cookieLow: number): NbdRequest | undefined {
    return this.#uses[cookieLow] === cookieHigh ? this.#slots[cookieLow] ?? undefined : undefined;
  }

  finish(cookieLow: number, request: NbdRequest): void {
    // its pipe would go to the next one, and this one's payload with it
    if (request.command === Command.WRITE && request.pipe?.inKernel === true && request.pipe.left > 0) throw earlyReply(this.name);
    this.#slots[cookieLow] = null;
    this.#uses[cookieLow] = (this.#uses[cookieLow]! + 1) % TWO_32;
    this.#free.push(cookieLow);
    this.#inFlight--;
    this.onFinish(request);
  }

  /** Says goodbye. Nothing may be in flight. */
  async close(): Promise<void> {
    if (this.dead) return;
    this.#writeHeader(Command.DISC, 0, 0, 0, 0, 0);
    await this.#socket.finish();
  }

  destroy(error: BlockError): void {
    this.#socket.destroy(error);
  }

  #writeHeader(command: number, flags: number, cookieHigh: number, cookieLow: number, offset: number, bytes: number): void {
    const header = this.#socket.reserve(REQUEST_BYTES);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeUInt32BE(cookieHigh, 8);
    header.writeUInt32BE(cookieLow, 12);
    header.writeUInt32BE(Math.floor(offset / TWO_32), 16);
    header.writeUInt32BE(offset % TWO_32, 20);
    header.writeUInt32BE(bytes, 24);
  }

  #die(error: BlockError): void {
    const unanswered = this.#slots.filter((request) => request !== null);
    this.#slots.length = 0;
    this.#free.length = 0;
    this.#inFlight = 0;
    this.onDeath(error, unanswered);
  }
}

function cancelled(name: string): BlockError {
  return new BlockError('CANCELLED', `the connection to '${name}' was given up`, { node: name });
}

function earlyReply(name: string): BlockError {
  return new BlockError('PROTOCOL', `'${name}' broke the NBD protocol: a write was answered before its data was sent`, { node: name, errno: 'EINVAL' });
}

function strayBytes(name: string): BlockError {
  return new BlockError('PROTOCOL', `'${name}' broke the NBD protocol: bytes that nobody asked for follow the negotiation`, { node: name, errno: 'EINVAL' });
}
