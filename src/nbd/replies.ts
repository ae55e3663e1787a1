/**
 * Replies on their way out. All that were completed in one turn of the event loop leave in one write: heads and small
 * bodies are laid side by side in one buffer, larger bodies go out from where they lie. One write is under way at a
 * time, so a client that does not read costs what its replies hold already, and nothing more.
 */
import type { Socket } from 'node:net';
import type { Lease } from '../base/buffer-pool.js';
import { setU64, viewOf } from '../base/bytes.js';
import { ReplyFlag, ReplyType, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC } from './protocol.js';

/** Below this, copying beside the other replies costs less than one more buffer in a writev. */
const INLINE_BYTES = 16 * 1024;
const BATCH_BYTES = 256 * 1024;
/** Larger bodies of one write end with the one that goes beyond this, so that the memory of those before is soon free. */
const WRITE_BYTES = 4 * 1024 * 1024;
/** The longest head: that of a hole. */
const HEAD_MAX = 32;

/** A request's 64-bit handle (QEMU: cookie), as its two words: it is only ever echoed. */
interface Handle {
  readonly high: number;
  readonly low: number;
}

/** What a reply belongs to; told when its last chunk is with the kernel or never will be. */
export interface ReplyOwner extends Handle {
  replied(): void;
}

/** Beside the chunk types of the protocol. */
export const SIMPLE = -1;

export class Reply {
  /** SIMPLE or a ReplyType. */
  readonly type: number;
  readonly owner: ReplyOwner;
  readonly last: boolean;
  /** Offset of a data or hole chunk, error of SIMPLE and of an error chunk, context id of a block status. */
  readonly value: number;
  readonly body: Uint8Array | null;
  /** Holds the body. */
  readonly lease: Lease | null;
  /** Length of a hole. */
  readonly holeBytes: number;

  constructor(owner: ReplyOwner, type: number, value: number, last = true, body: Uint8Array | null = null, lease: Lease | null = null, holeBytes = 0) {
    this.owner = owner;
    this.type = type;
    this.value = value;
    this.last = last;
    this.body = body;
    this.lease = lease;
    this.holeBytes = holeBytes;
  }
}

export class ReplyWriter {
  readonly #socket: Socket;
  #batch: Buffer | null = null;
  #view: DataView | null = null;
  #queue: Reply[] = [];
  /** In the write under way. */
  #sent: Reply[] = [];
  #writing = false;
  #scheduled = false;
  /** Requests are being taken in: what is answered at once leaves when all of them are in, not a turn later. */
  #gathering = false;
  #ended = false;
  /** Writes that have ended. */
  writes = 0;
  readonly #flushLater = (): void => {
    this.#scheduled = false;
    this.#flush();
  };
  readonly #written = (): void => {
    this.#writing = false;
    this.writes++;
    for (const reply of this.#sent.splice(0)) settle(reply);
    if (this.#queue.length > 0) this.#flush();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  get idle(): boolean { return !this.#writing && this.#queue.length === 0; }

  push(reply: Reply): void {
    if (this.#ended) {
      settle(reply);
      return;
    }
    this.#queue.push(reply);
    if (this.#scheduled || this.#writing || this.#gathering) return;
    this.#scheduled = true;
    setImmediate(this.#flushLater);
  }

  gather(): void {
    this.#gathering = true;
  }

  sendGathered(): void {
    this.#gathering = false;
    this.#flush();
  }

  /** The connection is lost: what waits is dropped, and what comes too. */
  end(): void {
    this.#ended = true;
    for (const reply of this.#queue.splice(0)) settle(reply);
  }

  #flush(): void {
    if (this.#writing || this.#queue.length === 0) return;
    this.#batch ??= Buffer.allocUnsafeSlow(BATCH_BYTES);
    this.#view ??= viewOf(this.#batch);
    const batch = this.#batch;
    const socket = this.#socket;
    this.#writing = true;
    let start = 0;
    let used = 0;
    let count = 0;
    let apart = 0;
    socket.cork();
    for (const reply of this.#queue) {
      const { body } = reply;
      const inline = body !== null && body.byteLength <= INLINE_BYTES ? body.byteLength : 0;
      if (used + HEAD_MAX + inline > BATCH_BYTES || apart > WRITE_BYTES) break;
      used += writeHead(this.#view, used, reply);
      if (inline > 0) {
        batch.set(body!, used);
        used += inline;
        reply.lease?.release();
      } else if (body !== null && body.byteLength > 0) {
        socket.write(batch.subarray(start, used));
        socket.write(body);
        start = used;
        apart += body.byteLength;
      }
      count++;
    }
    this.#sent = count === this.#queue.length ? this.#queue : this.#queue.slice(0, count);
    this.#queue = count === this.#queue.length ? [] : this.#queue.slice(count);
    socket.write(batch.subarray(start, used), this.#written);
    socket.uncork();
  }
}

function settle(reply: Reply): void {
  reply.lease?.release();
  if (reply.last) reply.owner.replied();
}

/** Returns the bytes written. */
function writeHead(view: DataView, at: number, reply: Reply): number {
  const { type, owner, value } = reply;
  const bodyBytes = reply.body?.byteLength ?? 0;
  if (type === SIMPLE) {
    view.setUint32(at, SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, value);
    view.setUint32(at + 8, owner.high);
    view.setUint32(at + 12, owner.low);
    return 16;
  }
  view.setUint32(at, STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, reply.last ? ReplyFlag.DONE : 0);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, owner.high);
  view.setUint32(at + 12, owner.low);
  const fields = writeFields(view, at + 20, reply, bodyBytes, value);
  view.setUint32(at + 16, fields + bodyBytes);
  return 20 + fields;
}

function writeFields(view: DataView, at: number, { type, holeBytes }: Reply, bodyBytes: number, value: number): number {
  switch (type) {
    case ReplyType.OFFSET_DATA:
      setU64(view, at, value);
      return 8;
    case ReplyType.OFFSET_HOLE:
      setU64(view, at, value);
      view.setUint32(at + 8, holeBytes);
      return 12;
    case ReplyType.BLOCK_STATUS:
      view.setUint32(at, value);
      return 4;
    case ReplyType.ERROR:
      view.setUint32(at, value);
      view.setUint16(at + 4, bodyBytes);
      return 6;
    default:
      return 0;
  }
}
