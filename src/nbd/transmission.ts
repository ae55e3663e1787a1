/**
 * The transmission phase of one connection (doc/proto.md, "Transmission phase"): takes bytes, makes requests of them,
 * and submits these. Heads are parsed where they lie; a write's payload is copied once, into the buffer it is written
 * from. It stops taking bytes while it has as many requests or as much memory under way as it may.
 */
import type { Lease } from '../base/buffer-pool.js';
import { getU64, viewOf } from '../base/bytes.js';
import type { BlockBackend } from '../block/backend.js';
import { makeTask } from '../block/request.js';
import type { TraceTask } from '../trace/sink.js';
import type { Negotiated } from './handshake-server.js';
import { Command, CommandFlag, MAX_PAYLOAD, REQUEST_MAGIC } from './protocol.js';
import type { ReplyOwner, ReplyWriter } from './replies.js';
import { refuse, serve } from './serve.js';
import type { MemoryShare } from './memory-share.js';

const HEAD = 28;

/** One request, from its head to its last reply. */
export class NbdRequest implements ReplyOwner {
  readonly owner: Transmission;
  readonly type: number;
  readonly flags: number;
  readonly high: number;
  readonly low: number;
  readonly offset: number;
  readonly bytes: number;
  /** The memory of a read or write. */
  lease: Lease | null = null;

  constructor(owner: Transmission, type: number, flags: number, high: number, low: number, offset: number, bytes: number) {
    this.owner = owner;
    this.type = type;
    this.flags = flags;
    this.high = high;
    this.low = low;
    this.offset = offset;
    this.bytes = bytes;
  }

  replied(): void { this.owner.finished(this); }
}

interface TransmissionOptions {
  /** Who the client is. */
  readonly peer: string;
  readonly negotiated: Negotiated;
  readonly replies: ReplyWriter;
  readonly memory: MemoryShare;
  readonly maxInFlight: number;
  /** It can take bytes again, or has become idle. */
  readonly onProgress: () => void;
}

export class Transmission {
  readonly negotiated: Negotiated;
  readonly replies: ReplyWriter;
  readonly memory: MemoryShare;
  readonly backend: BlockBackend;
  /** Who the client is, for a trace. */
  readonly task: TraceTask;
  readonly #options: TransmissionOptions;
  readonly #head = Buffer.alloc(HEAD);
  readonly #headView = viewOf(this.#head);
  #headFilled = 0;
  /** The write whose payload is being taken, and how much of it is there. */
  #receiving: NbdRequest | null = null;
  #received = 0;
  #givenUp: NbdRequest | null = null;
  /** Payload that nobody wants. */
  #skip = 0;
  #awaitingMemory = false;
  #inFlight = 0;
  /** Why no more requests are taken: the client asked, or cannot be understood any more. */
  ended: { readonly why: string | null } | null = null;

  constructor(options: TransmissionOptions) {
    this.#options = options;
    this.negotiated = options.negotiated;
    this.replies = options.replies;
    this.memory = options.memory;
    this.backend = options.negotiated.export.source.backend;
    this.task = makeTask(`nbd ${options.peer} of ${options.negotiated.export.source.name}`);
  }

  get inFlight(): number { return this.#inFlight; }
  /** It has memory for a payload that has not come yet. */
  get receiving(): boolean { return this.#receiving !== null; }

  /** True where it takes no bytes now, and `onProgress` will come. */
  get blocked(): boolean { return this.#awaitingMemory || (this.#receiving === null && this.#skip === 0 && this.#inFlight >= this.#options.maxInFlight); }

  /** Takes bytes from `at` on until it is blocked or ended; returns where it stopped. */
  receive(chunk: Uint8Array, start: number): number {
    const end = chunk.byteLength;
    let at = start;
    let view: DataView | null = null;
    while (at < end && this.ended === null && !this.blocked) {
      if (this.#receiving !== null) {
        at += this.#takePayload(this.#receiving, chunk, at);
      } else if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, end - at);
        this.#skip -= skipped;
        at += skipped;
      } else if (this.#headFilled === 0 && end - at >= HEAD) {
        view ??= viewOf(chunk);
        this.#takeHead(view, at);
        at += HEAD;
      } else {
        const taken = Math.min(HEAD - this.#headFilled, end - at);
        this.#head.set(chunk.subarray(at, at + taken), this.#headFilled);
        this.#headFilled += taken;
        at += taken;
        if (this.#headFilled === HEAD) {
          this.#headFilled = 0;
          this.#takeHead(this.#headView, 0);
        }
      }
    }
    return at;
  }

  /** Takes nothing more. A payload that was begun is given up, but its memory is kept while the socket may read into it. */
  end(): void {
    this.ended ??= { why: null };
    if (this.#receiving === null) return;
    this.#givenUp = this.#receiving;
    this.#receiving = null;
    this.#inFlight--;
  }

  /** The socket is closed. */
  close(): void {
    this.end();
    if (this.#givenUp !== null) this.release(this.#givenUp);
  }

  /** The last reply of a request is out. */
  finished(request: NbdRequest): void {
    this.release(request);
    this.#inFlight--;
    this.#options.onProgress();
  }

  /** Gives the memory of a request back, where nobody else has. */
  release(request: NbdRequest): void {
    request.lease?.release();
    request.lease = null;
  }

  #takeHead(view: DataView, at: number): void {
    const type = view.getUint16(at + 6);
    // an offset beyond 2^53 is past the end of everything
    const offset = getU64(view, at + 16) ?? Infinity;
    const request = new NbdRequest(this, type, view.getUint16(at + 4), view.getUint32(at + 8), view.getUint32(at + 12), offset, view.getUint32(at + 24));
    const magic = view.getUint32(at);
    if (magic !== REQUEST_MAGIC) {
      // QEMU answers before it hangs up; where the next request would begin, nobody knows
      this.ended = { why: `invalid magic (got 0x${magic.toString(16)})` };
      this.#inFlight++;
      return refuse(request, this.ended.why!);
    }
    if (type === Command.DISC) {
      this.ended = { why: null };
      return;
    }
    this.#inFlight++;
    const bad = this.#fault(request, view, at);
    if (bad !== null) {
      if (type === Command.WRITE) {
        this.#skip = request.bytes;
        // its payload is not worth waiting for
        if (request.bytes > MAX_PAYLOAD) this.ended = { why: 'Request handling failed in intermediate state' };
      }
      return refuse(request, bad);
    }
    if ((type === Command.READ || type === Command.WRITE) && request.bytes > 0) return this.#lease(request);
    serve(request);
  }

  /** What is wrong with a request, in QEMU's words. */
  #fault({ type, flags, offset, bytes }: NbdRequest, view: DataView, at: number): string | null {
    const { export: served, structured } = this.negotiated;
    if (bytes > MAX_PAYLOAD && (type === Command.READ || type === Command.WRITE || type === Command.CACHE)) {
      return `len (${bytes} ) is larger than max len (${MAX_PAYLOAD})`;
    }
    if (served.readOnly && (type === Command.WRITE || type === Command.WRITE_ZEROES || type === Command.TRIM)) return 'Export is read-only';
    if (offset > served.bytes || bytes > served.bytes - offset) {
      return `operation past EOF; From: ${view.getBigUint64(at + 16)}, Len: ${bytes}, Size: ${served.bytes}`;
    }
    const unknown = (flags & ~validFlags(type, structured)) !== 0;
    return unknown ? `unsupported flags for command ${commandName(type)} (got 0x${flags.toString(16)})` : null;
  }

  #lease(request: NbdRequest): void {
    const lease = this.memory.lease(request.bytes);
    if (!(lease instanceof Promise)) return this.#leased(request, lease);
    this.#awaitingMemory = true;
    void lease.then((granted) => {
      this.#awaitingMemory = false;
      if (this.ended !== null) {
        granted.release();
        this.finished(request);
        return;
      }
      this.#leased(request, granted);
      this.#options.onProgress();
    });
  }

  #leased(request: NbdRequest, lease: Lease): void {
    request.lease = lease;
    if (request.type === Command.READ) {
      serve(request);
      return;
    }
    this.#receiving = request;
    this.#received = 0;
  }

  /** Where the rest of the payload goes that is being received, if it is at least so long. */
  payloadRoom(least: number): Uint8Array | null {
    const request = this.#receiving;
    return request === null || request.bytes - this.#received < least ? null : request.lease!.buffer.subarray(this.#received);
  }

  /** So many bytes have been put into `payloadRoom`. */
  takeDirect(bytes: number): void {
    if (this.#receiving !== null) this.#advancePayload(this.#receiving, bytes);
  }

  /** Returns the bytes taken. */
  #takePayload(request: NbdRequest, chunk: Uint8Array, at: number): number {
    const taken = Math.min(request.bytes - this.#received, chunk.byteLength - at);
    request.lease!.buffer.set(at === 0 && taken === chunk.byteLength ? chunk : chunk.subarray(at, at + taken), this.#received);
    this.#advancePayload(request, taken);
    return taken;
  }

  #advancePayload(request: NbdRequest, bytes: number): void {
    this.#received += bytes;
    if (this.#received < request.bytes) return;
    this.#receiving = null;
    serve(request);
  }
}

function validFlags(type: number, structured: boolean): number {
  switch (type) {
    case Command.READ:
      return structured ? CommandFlag.FUA | CommandFlag.DF : CommandFlag.FUA;
    case Command.WRITE_ZEROES:
      return CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO;
    case Command.BLOCK_STATUS:
      return CommandFlag.FUA | CommandFlag.REQ_ONE;
    default:
      return CommandFlag.FUA;
  }
}

const COMMAND_NAMES: Readonly<Record<number, string>> = {
  [Command.READ]: 'read', [Command.WRITE]: 'write', [Command.DISC]: 'disconnect', [Command.FLUSH]: 'flush', [Command.TRIM]: 'trim',
  [Command.CACHE]: 'cache', [Command.WRITE_ZEROES]: 'write zeroes', [Command.BLOCK_STATUS]: 'block status',
};

function commandName(type: number): string {
  return COMMAND_NAMES[type] ?? '<unknown>';
}
