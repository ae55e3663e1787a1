/** An NBD server that says exactly what a test wants, byte for byte. */
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach } from '@jest/globals';
import { messageOf } from '../../src/base/errors.js';

const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;

export interface ScriptedRequest {
  readonly flags: number;
  readonly command: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly bytes: number;
  readonly payload: Buffer;
}

export interface ServedExport {
  readonly size?: number;
  readonly flags?: number;
  /** minimum, preferred, maximum */
  readonly blocks?: readonly [number, number, number];
  readonly structured?: boolean;
  readonly contexts?: Readonly<Record<string, number>>;
}

/** Everything a client can use: flush, FUA, trim, zeroes, cache, fast zeroes. */
export const ALL_FLAGS = 1 + 4 + 8 + 32 + 64 + 1024 + 2048;
export const MULTI_CONN = 256;

export class ScriptedPeer {
  readonly socket: Socket;
  /** The pieces as they arrived. */
  readonly pieces: Buffer[] = [];
  #buffered = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (piece) => {
      this.pieces.push(piece);
      this.#buffered = Buffer.concat([this.#buffered, piece]);
      this.#wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  /** Rejects where the client hangs up before. */
  async read(bytes: number): Promise<Buffer> {
    while (this.#buffered.byteLength < bytes) {
      if (this.#ended) throw new Error('the client hung up');
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
    const taken = this.#buffered.subarray(0, bytes);
    this.#buffered = this.#buffered.subarray(bytes);
    return taken;
  }

  write(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** One byte at a time, each as a piece of its own where the kernel lets it. */
  async trickle(data: Uint8Array): Promise<void> {
    for (const byte of data) {
      this.socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** The greeting; resolves with the client's flags. */
  async greet(flags = 3): Promise<number> {
    this.write(Buffer.from('NBDMAGICIHAVEOPT'), u16(flags));
    return (await this.read(4)).readUInt32BE(0);
  }

  async option(): Promise<{ readonly option: number; readonly data: Buffer }> {
    const header = await this.read(16);
    return { option: header.readUInt32BE(8), data: await this.read(header.readUInt32BE(12)) };
  }

  reply(option: number, type: number, data: Uint8Array = Buffer.alloc(0), claimed = data.byteLength): void {
    this.write(u64(OPTION_REPLY_MAGIC), u32(option), u32(type), u32(claimed), data);
  }

  /** A whole negotiation as a modern server does it. */
  async serve(options: ServedExport = {}): Promise<void> {
    await this.greet();
    for (;;) {
      const { option, data } = await this.option();
      if (option === 8) {
        this.reply(option, options.structured === false ? 0x8000_0001 : 1);
      } else if (option === 10) {
        for (const [name, id] of Object.entries(options.contexts ?? {})) if (data.includes(name)) this.reply(option, 4, Buffer.concat([u32(id), Buffer.from(name)]));
        this.reply(option, 1);
      } else if (option === 7) {
        this.reply(option, 3, Buffer.concat([u16(0), u64(BigInt(options.size ?? 1_048_576)), u16(options.flags ?? ALL_FLAGS)]));
        if (options.blocks !== undefined) this.reply(option, 3, Buffer.concat([u16(3), ...options.blocks.map(u32)]));
        this.reply(option, 1);
        return;
      } else {
        throw new Error(`unexpected option ${option}`);
      }
    }
  }

  async request(): Promise<ScriptedRequest> {
    const header = await this.read(28);
    const command = header.readUInt16BE(6);
    const bytes = header.readUInt32BE(24);
    return {
      flags: header.readUInt16BE(4), command, cookie: Buffer.from(header.subarray(8, 16)), offset: Number(header.readBigUInt64BE(16)), bytes,
      payload: command === 1 ? Buffer.from(await this.read(bytes)) : Buffer.alloc(0),
    };
  }

  simple(request: ScriptedRequest, errno = 0, data: Uint8Array = Buffer.alloc(0)): void {
    this.write(u32(0x6744_6698), u32(errno), request.cookie, data);
  }

  /** One chunk; `done` ends the request. */
  chunk(request: ScriptedRequest, type: number, data: Uint8Array, done: boolean, claimed = data.byteLength): void {
    this.write(chunkOf(request, type, data, done, claimed));
  }

  close(): void {
    this.socket.destroy();
  }
}

export function chunkOf(request: ScriptedRequest, type: number, data: Uint8Array, done: boolean, claimed = data.byteLength): Buffer {
  return Buffer.concat([u32(0x668e_33ef), u16(done ? 1 : 0), u16(type), request.cookie, u32(claimed), data]);
}

export function dataAt(offset: number, data: Uint8Array): Buffer {
  return Buffer.concat([u64(BigInt(offset)), data]);
}

export function u16(value: number): Buffer {
  const data = Buffer.alloc(2);
  data.writeUInt16BE(value);
  return data;
}

export function u32(value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(value);
  return data;
}

export function u64(value: bigint): Buffer {
  const data = Buffer.alloc(8);
  data.writeBigUInt64BE(value);
  return data;
}

export type Script = (peer: ScriptedPeer, connection: number) => Promise<void>;

/** The function returned listens on `path` and runs the script for each connection; what a script throws fails the test. */
export function useScriptedServer(): (path: string, script: Script) => Promise<Server> {
  const servers: Server[] = [];
  const sockets = new Set<Socket>();
  const failures: unknown[] = [];
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    const [failure] = failures.splice(0);
    if (failure !== undefined) throw new Error(`the scripted server failed: ${messageOf(failure)}`, { cause: failure });
  });
  return async (path, script) => {
    let connections = 0;
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      script(new ScriptedPeer(socket), connections++).catch((error: unknown) => {
        if (!(error instanceof Error && error.message === 'the client hung up')) failures.push(error);
        socket.destroy();
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return server;
  };
}
