/**
 * Takes the server's byte stream in the transmission phase apart. A read's payload goes from the piece that the socket
 * delivered straight to the caller's buffer. What the server says is checked against the request that it answers; a
 * stream that cannot be trusted any more is a thrown PROTOCOL error, a server's own error ends one request only.
 */
import { BlockError } from '../base/errors.js';
import type { PipeBuffer } from '../base/pipe-buffer.js';
import type { NbdExtent, NbdRequest } from './client-request.js';
import { printable } from './handshake-client.js';
import { Command, MAX_STRING, ReplyFlag, ReplyType, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC } from './protocol.js';

export interface ReplyHandler {
  readonly name: string;
  /** The socket, for host calls. */
  readonly descriptor: number;
  readonly structuredReplies: boolean;
  /** Names of the contexts that were negotiated, by their ids. */
  readonly contextNames: ReadonlyMap<number, string>;
  /** The request with this cookie, or undefined. */
  find(cookieHigh: number, cookieLow: number): NbdRequest | undefined;
  /** The last of its replies has come. */
  finish(cookieLow: number, request: NbdRequest): void;
}

/** 1 MiB of extents for each context is what QEMU sends at most. */
const MAX_STATUS_BYTES = 2 * 1024 * 1024;
const MAX_SKIPPED = 64 * 1024;
/** Payloads that are worth a system call of their own. */
const LARGE = 32 * 1024;
/** What is read of a payload that then goes on into a pipe: only so that it is known to be there. */
const HERALD = 64;

type Stage = 'reply' | 'chunk' | 'data-offset' | 'hole' | 'error' | 'message' | 'status' | 'data' | 'skip';

export class ReplyParser {
  readonly #handler: ReplyHandler;
  #stage: Stage = 'reply';
  /** Bytes that the stage's fixed part has. */
  #need = 16;
  #head = Buffer.alloc(64);
  #have = 0;
  /** Payload under way to `#into` (null: thrown away). */
  #left = 0;
  #into: Uint8Array | null = null;
  /** Payload goes here rather, while it is `inKernel`. */
  #pipe: PipeBuffer | null = null;
  readonly #herald = Buffer.alloc(HERALD);
  #at = 0;
  #request: NbdRequest | null = null;
  #slot = 0;
  #type = 0;
  #done = false;
  #length = 0;
  #errno = 0;
  /** Size of the last payload of a read. */
  #lastData = 0;
  #lastPiped = false;

  constructor(handler: ReplyHandler) {
    this.#handler = handler;
  }

  /** Where the socket best puts what comes next; see ClientSocket.wants. */
  wants(): Uint8Array | 'short' | 'head' | null {
    if (this.#piping) return this.#herald.subarray(0, this.#left);
    if (this.#stage === 'data' && this.#left >= LARGE) return this.#into!.subarray(this.#at, this.#at + this.#left);
    if (this.#lastData < LARGE) return null;
    return this.#lastPiped ? 'head' : 'short';
  }

  /** So many bytes have come to where `wants` said. */
  direct(bytes: number): void {
    if (this.#piping) this.#pipe!.append(this.#herald.subarray(0, bytes));
    this.#came(bytes);
    this.#pull();
  }

  get #piping(): boolean { return this.#pipe !== null && this.#pipe.inKernel; }

  #came(bytes: number): void {
    this.#at += bytes;
    this.#left -= bytes;
    if (this.#left === 0) this.#payloadDone();
  }

  /** What is in the socket already goes into the pipe now. */
  #pull(): void {
    if (!this.#piping) return;
    const bytes = this.#pipe!.pull(this.#handler.descriptor, this.#left);
    if (bytes > 0) this.#came(bytes);
  }

  consume(piece: Buffer): void {
    let position = 0;
    while (position < piece.length) {
      if (this.#left > 0) {
        const bytes = Math.min(this.#left, piece.length - position);
        if (this.#piping) this.#pipe!.append(piece.subarray(position, position + bytes));
        else if (this.#into !== null) piece.copy(this.#into, this.#at, position, position + bytes);
        position += bytes;
        this.#came(bytes);
      } else if (this.#have === 0 && piece.length - position >= this.#need) {
        const at = position;
        position += this.#need;
        this.#fixedPart(piece, at);
      } else {
        const bytes = Math.min(this.#need - this.#have, piece.length - position);
        piece.copy(this.#head, this.#have, position, position + bytes);
        this.#have += bytes;
        position += bytes;
        if (this.#have < this.#need) return;
        this.#have = 0;
        this.#fixedPart(this.#head, 0);
      }
    }
    this.#pull();
  }

  #fixedPart(from: Buffer, at: number): void {
    switch (this.#stage) {
      case 'reply':
        return this.#reply(from, at);
      case 'chunk':
        return this.#chunk(from.readUInt32BE(at));
      case 'data-offset':
        return this.#data(this.#within(from, at), this.#length - 8);
      case 'hole': {
        const start = this.#within(from, at);
        const bytes = from.readUInt32BE(at + 8);
        this.#cover(start, bytes);
        this.#request!.pipe?.spill();
        this.#request!.buffer!.fill(0, start, start + bytes);
        return this.#chunkDone();
      }
      case 'error':
        return this.#errorHead(from, at);
      case 'message':
      case 'status':
      case 'data':
      case 'skip':
        throw this.#broken('its parser lost its way');
    }
  }

  #reply(from: Buffer, at: number): void {
    const magic = from.readUInt32BE(at);
    const structured = magic === STRUCTURED_REPLY_MAGIC;
    if (!structured && magic !== SIMPLE_REPLY_MAGIC) throw this.#broken(`a reply begins with 0x${magic.toString(16)}`);
    if (structured && !this.#handler.structuredReplies) throw this.#broken('unexpected structured reply');
    this.#slot = from.readUInt32BE(at + 12);
    const request = this.#handler.find(from.readUInt32BE(at + 8), this.#slot);
    if (request === undefined) throw this.#broken('unexpected cookie value');
    this.#request = request;
    if (!structured) return this.#simple(request, from.readUInt32BE(at + 4));
    const flags = from.readUInt16BE(at + 4);
    this.#done = (flags & ReplyFlag.DONE) !== 0;
    this.#type = from.readUInt16BE(at + 6);
    this.#expect('chunk', 4);
  }

  #simple(request: NbdRequest, errno: number): void {
    this.#done = true;
    if (errno !== 0) {
      request.fail(errno, this.#handler.name, '');
      return this.#chunkDone();
    }
    if (request.command === Command.READ) {
      if (this.#handler.structuredReplies) throw this.#broken('a simple reply to a read, where structured replies were agreed');
      return this.#data(0, request.bytes);
    }
    if (request.command === Command.BLOCK_STATUS) throw this.#broken('a simple reply to a block status request');
    this.#chunkDone();
  }

  #chunk(length: number): void {
    const type = this.#type;
    const { command } = this.#request!;
    this.#length = length;
    const fits = (ok: boolean): void => {
      if (!ok) throw this.#broken(`a chunk of type ${type} and ${length} bytes answers a request of type ${command}`);
    };
    switch (type) {
      case ReplyType.NONE:
        fits(length === 0 && this.#done);
        return this.#chunkDone();
      case ReplyType.OFFSET_DATA:
        fits(command === Command.READ && length > 8 && length - 8 <= this.#request!.bytes);
        return this.#expect('data-offset', 8);
      case ReplyType.OFFSET_HOLE:
        fits(command === Command.READ && length === 12);
        return this.#expect('hole', 12);
      case ReplyType.BLOCK_STATUS:
        fits(command === Command.BLOCK_STATUS && length >= 12 && length % 8 === 4 && length <= MAX_STATUS_BYTES);
        return this.#collect('status', length);
      case ReplyType.ERROR:
      case ReplyType.ERROR_OFFSET:
        fits(length >= (type === ReplyType.ERROR ? 6 : 14) && length <= 14 + MAX_STRING);
        return this.#expect('error', 6);
      default:
        // an error of a kind that is not known yet is still only an error; anything else could be data that we lack
        fits(type >= 0x8000 && length <= MAX_SKIPPED);
        this.#request!.fail(22, this.#handler.name, `error type ${type}`);
        if (length === 0) return this.#chunkDone();
        this.#stage = 'skip';
        this.#into = null;
        this.#left = length;
    }
  }

  #errorHead(from: Buffer, at: number): void {
    this.#errno = from.readUInt32BE(at);
    const messageBytes = from.readUInt16BE(at + 4);
    const offsetBytes = this.#type === ReplyType.ERROR_OFFSET ? 8 : 0;
    if (this.#errno === 0) throw this.#broken('an error chunk without an error');
    if (messageBytes + 6 + offsetBytes !== this.#length) throw this.#broken('an error chunk whose lengths differ');
    if (this.#length === 6) {
      this.#request!.fail(this.#errno, this.#handler.name, '');
      return this.#chunkDone();
    }
    this.#collect('message', this.#length - 6);
  }

  #payloadDone(): void {
    switch (this.#stage) {
      case 'message':
        this.#messageDone(this.#into!);
        break;
      case 'status':
        this.#statusDone(Buffer.from(this.#into!.buffer, this.#into!.byteOffset, this.#into!.byteLength));
        break;
      case 'reply':
      case 'chunk':
      case 'data-offset':
      case 'hole':
      case 'error':
      case 'data':
      case 'skip':
    }
    this.#chunkDone();
  }

  #messageDone(data: Uint8Array): void {
    const request = this.#request!;
    const withOffset = this.#type === ReplyType.ERROR_OFFSET;
    const message = withOffset ? data.subarray(0, -8) : data;
    if (withOffset) {
      const at = Number(Buffer.from(data.subarray(-8)).readBigUInt64BE());
      if (at < request.offset || at > request.offset + request.bytes) throw this.#broken('an error lies outside its request');
    }
    request.fail(this.#errno, this.#handler.name, printable(message));
  }

  #statusDone(data: Buffer): void {
    const request = this.#request!;
    const context = this.#handler.contextNames.get(data.readUInt32BE(0));
    request.extents ??= new Map();
    if (context === undefined) throw this.#broken(`the status of context ${data.readUInt32BE(0)}, which was not negotiated`);
    if (request.extents.has(context)) throw this.#broken(`context '${context}' is answered twice`);
    const extents: NbdExtent[] = [];
    let left = request.bytes;
    for (let at = 4; at < data.length && left > 0; at += 8) {
      const told = data.readUInt32BE(at);
      if (told === 0) throw this.#broken('an extent of no bytes');
      // only the last extent may reach past the request
      const bytes = Math.min(told, left);
      extents.push({ bytes, flags: data.readUInt32BE(at + 4) });
      left -= bytes;
    }
    request.extents.set(context, extents);
  }

  #data(start: number, bytes: number): void {
    this.#cover(start, bytes);
    this.#stage = 'data';
    this.#lastData = bytes;
    const { buffer, pipe } = this.#request!;
    this.#into = buffer;
    this.#pipe = pipe;
    this.#lastPiped = pipe !== null;
    if (pipe !== null && pipe.filled !== start) pipe.spill();
    this.#at = start;
    this.#left = bytes;
  }

  #cover(start: number, bytes: number): void {
    if (!this.#request!.cover(start, bytes)) throw this.#broken('a chunk lies outside its read, or came twice');
  }

  /** An absolute offset on the wire → position in the read. */
  #within(from: Buffer, at: number): number {
    return from.readUInt32BE(at) * 0x1_0000_0000 + from.readUInt32BE(at + 4) - this.#request!.offset;
  }

  #chunkDone(): void {
    const request = this.#request!;
    this.#into = null;
    this.#pipe = null;
    this.#expect('reply', 16);
    if (!this.#done) return;
    this.#request = null;
    if (request.error === null && request.command === Command.READ && !request.complete) throw this.#broken('a read ended before all of its data had come');
    if (request.error === null && request.command === Command.BLOCK_STATUS && request.extents === null) throw this.#broken('a block status ended without extents');
    this.#handler.finish(this.#slot, request);
  }

  #expect(stage: Stage, bytes: number): void {
    this.#stage = stage;
    this.#need = bytes;
  }

  #collect(stage: Stage, bytes: number): void {
    this.#stage = stage;
    this.#into = Buffer.alloc(bytes);
    this.#at = 0;
    this.#left = bytes;
  }

  #broken(why: string): BlockError {
    return new BlockError('PROTOCOL', `'${this.#handler.name}' broke the NBD protocol: ${why}`, { node: this.#handler.name, errno: 'EINVAL' });
  }
}
