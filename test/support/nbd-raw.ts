/** An NBD client that sends whatever bytes a test makes up, and shows what comes back. */
import { connect, type Socket } from 'node:net';

export const GREETING_BYTES = 18;
const OPTION_MAGIC = Buffer.from('IHAVEOPT');

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** A text behind its length. */
export function text(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u32(bytes.byteLength), bytes]);
}

/** `declared` lies about the length of the payload. */
export function option(number: number, payload: Uint8Array = Buffer.alloc(0), declared = payload.byteLength): Buffer {
  return Buffer.concat([OPTION_MAGIC, u32(number), u32(declared), payload]);
}

/** Payload of INFO and GO. */
export function infoPayload(name: string, ...infos: readonly number[]): Buffer {
  return Buffer.concat([text(name), u16(infos.length), ...infos.map(u16)]);
}

/** Payload of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function metaPayload(name: string, ...queries: readonly string[]): Buffer {
  return Buffer.concat([text(name), u32(queries.length), ...queries.map(text)]);
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly handle?: number | bigint;
  readonly offset?: number | bigint;
  readonly bytes?: number;
  readonly payload?: Uint8Array;
}

export function request({ type, flags = 0, handle = 0x1122_3344_5566_7788n, offset = 0, bytes = 0, payload = Buffer.alloc(0) }: RawRequest): Buffer {
  return Buffer.concat([u32(0x2560_9513), u16(flags), u16(type), u64(handle), u64(offset), u32(bytes), payload]);
}

export interface RawReply {
  /** `simple`, or the type of the chunk. */
  readonly type: 'simple' | number;
  readonly handle: bigint;
  /** Of a simple reply. */
  readonly error: number;
  readonly done: boolean;
  /** Payload of a chunk, data of a simple reply to a read. */
  readonly payload: Buffer;
}

export class RawNbd {
  readonly socket: Socket;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #closed = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (data: Buffer) => {
      this.#chunks.push(data);
      this.#bytes += data.byteLength;
      this.#wake();
    });
    socket.on('error', () => undefined);
    // what has been received is shown, however the connection ended
    socket.on('end', () => this.#close());
    socket.on('close', () => this.#close());
  }

  #close(): void {
    this.#closed = true;
    this.#wake();
  }

  /** `to`: the path of a unix socket, or a port of this machine. A server's socket is there a moment before it listens. */
  static async connect(to: string | number, tries = 40): Promise<RawNbd> {
    for (;; tries--) {
      const client = await RawNbd.#connect(to).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ECONNREFUSED' || tries === 0) throw error;
        return null;
      });
      if (client !== null) return client;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  }

  static #connect(to: string | number): Promise<RawNbd> {
    return new Promise((resolve, reject) => {
      const socket = connect({ ...(typeof to === 'string' ? { path: to } : { host: '127.0.0.1', port: to }), allowHalfOpen: true });
      const client = new RawNbd(socket);
      socket.once('error', reject);
      socket.once('connect', () => resolve(client));
    });
  }

  /** Connects, takes the greeting, and sends client flags (3: fixed newstyle, no zeroes). */
  static async greeted(path: string | number, flags = 3): Promise<RawNbd> {
    const client = await RawNbd.connect(path);
    await client.read(GREETING_BYTES);
    client.send(u32(flags));
    return client;
  }

  /** As far as the transmission phase, through GO. */
  static async transmitting(path: string | number, options: { readonly structured?: boolean; readonly name?: string; readonly contexts?: readonly string[] } = {}): Promise<RawNbd> {
    const { structured = true, name = '', contexts = [] } = options;
    const client = await RawNbd.greeted(path);
    if (structured) client.send(option(8));
    if (contexts.length > 0) client.send(option(10, metaPayload(name, ...contexts)));
    client.send(option(7, infoPayload(name, 3)));
    for (let left = 1 + (structured ? 1 : 0) + (contexts.length > 0 ? 1 : 0); left > 0; left--) {
      const last = (await client.optionReplies()).at(-1)!;
      if (last.type !== 1) throw new Error(`option ${last.option} was answered with 0x${last.type.toString(16)}: ${last.payload.toString()}`);
    }
    return client;
  }

  send(...bytes: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(bytes));
  }

  /** Exactly so many bytes; throws where the connection ends before. */
  async read(bytes: number): Promise<Buffer> {
    while (this.#bytes < bytes) {
      if (this.#closed) throw new Error(`the connection ended after ${this.#bytes} of ${bytes} bytes`);
      await this.#more();
    }
    return this.#take(bytes);
  }

  /** All that comes until the server ends the connection. */
  async rest(): Promise<Buffer> {
    while (!this.#closed) await this.#more();
    return this.#take(this.#bytes);
  }

  #take(bytes: number): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    this.#bytes -= bytes;
    this.#chunks = this.#bytes === 0 ? [] : [all.subarray(bytes)];
    return all.subarray(0, bytes);
  }

  /** Replies to one option, up to the ACK or the error that ends them. */
  async optionReplies(): Promise<{ readonly option: number; readonly type: number; readonly payload: Buffer }[]> {
    const replies = [];
    for (;;) {
      const head = await this.read(20);
      const reply = { option: head.readUInt32BE(8), type: head.readUInt32BE(12), payload: await this.read(head.readUInt32BE(16)) };
      replies.push(reply);
      if (reply.type === 1 || reply.type >= 0x8000_0000) return replies;
    }
  }

  /** One simple reply (with `dataBytes` behind it unless it is an error) or one chunk. */
  async reply(dataBytes = 0): Promise<RawReply> {
    const magic = (await this.read(4)).readUInt32BE(0);
    if (magic === 0x6744_6698) {
      const head = await this.read(12);
      const error = head.readUInt32BE(0);
      return { type: 'simple', handle: head.readBigUInt64BE(4), error, done: true, payload: await this.read(error === 0 ? dataBytes : 0) };
    }
    if (magic !== 0x668e_33ef) throw new Error(`a reply begins with 0x${magic.toString(16)}`);
    const head = await this.read(16);
    return { type: head.readUInt16BE(2), handle: head.readBigUInt64BE(4), error: 0, done: (head.readUInt16BE(0) & 1) !== 0, payload: await this.read(head.readUInt32BE(12)) };
  }

  /** Chunks up to the last, or one simple reply. */
  async replies(dataBytes = 0): Promise<RawReply[]> {
    const all: RawReply[] = [];
    do all.push(await this.reply(dataBytes)); while (!all.at(-1)!.done);
    return all;
  }

  end(): void { this.socket.end(); }

  destroy(): void { this.socket.destroy(); }

  #more(): Promise<void> {
    return new Promise((resolve) => { this.#wake = resolve; });
  }
}
