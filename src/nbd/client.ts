/**
 * An NBD client: what a user of an export calls. Requests larger than the server takes are cut; all parts of one are in
 * flight together. A buffer is lent until the promise settles, also where it rejects.
 */
import { assert } from '../base/assert.js';
import { alignDown, GiB, TWO_32 } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { PipeBuffer } from '../base/pipe-buffer.js';
import { ClientPool, type PoolOptions } from './client-pool.js';
import { NbdRequest, type NbdExtent, type ResendWatch } from './client-request.js';
import type { Negotiated } from './handshake-client.js';
import { Command, CommandFlag, TransmissionFlag } from './protocol.js';

export type { NbdExtent } from './client-request.js';

export const BASE_ALLOCATION = 'base:allocation';
const LARGEST_STATUS = TWO_32 - 65_536;

export type NbdClientOptions = Omit<PoolOptions, 'contexts' | 'tls' | 'exportName'> & {
  /** Default: the empty name, which is a server's default export. */
  readonly exportName?: string | undefined;
  /** Default: `base:allocation`. */
  readonly contexts?: readonly string[] | undefined;
  readonly tls?: PoolOptions['tls'] | undefined;
};

export interface WriteOptions {
  readonly fua?: boolean | undefined;
  readonly pipe?: PipeBuffer | undefined;
  /** Of a request that the server takes in one piece. */
  readonly watch?: ResendWatch | null | undefined;
}

export interface ZeroOptions {
  readonly fua?: boolean | undefined;
  /** The range stays allocated. */
  readonly noHole?: boolean | undefined;
  /** Fail with NOT_SUPPORTED rather than write the zeroes. */
  readonly fast?: boolean | undefined;
}

export class NbdClient {
  readonly name: string;
  readonly info: Negotiated;
  readonly #pool: ClientPool;

  private constructor(pool: ClientPool) {
    this.#pool = pool;
    this.name = pool.name;
    this.info = pool.info;
  }

  /** Connects and negotiates. Rejects with NOT_FOUND where the server has no such export, PEER where it refuses, IO, PROTOCOL. */
  static async open(options: NbdClientOptions): Promise<NbdClient> {
    return new NbdClient(await ClientPool.open({ ...options, exportName: options.exportName ?? '', contexts: options.contexts ?? [BASE_ALLOCATION], tls: options.tls ?? null }));
  }

  /** Bytes. */
  get size(): number { return this.info.size; }
  get readOnly(): boolean { return this.#has(TransmissionFlag.READ_ONLY); }
  get canTrim(): boolean { return this.#has(TransmissionFlag.SEND_TRIM); }
  get canZero(): boolean { return this.#has(TransmissionFlag.SEND_WRITE_ZEROES); }
  get canZeroFast(): boolean { return this.canZero && this.#has(TransmissionFlag.SEND_FAST_ZERO); }
  get canFua(): boolean { return this.#has(TransmissionFlag.SEND_FUA); }
  /** How many bytes of one request may be in a pipe; 0 where none may. */
  get pipeBytes(): number { return this.#pool.canPipe ? this.info.maximumBlock : 0; }
  get canMultiConn(): boolean { return this.#has(TransmissionFlag.CAN_MULTI_CONN); }
  /** How many connections there are now. */
  get connections(): number { return this.#pool.connections; }
  /** How often the server was lost with confirmed changes on it that no flush had covered. */
  get losses(): number { return this.#pool.losses; }
  /** What was lost is written again: flushes may succeed. */
  forgiveLoss(): void { this.#pool.forgiveLoss(); }

  /** Fills `buffer` from `offset`; or `pipe`, which has begun with that buffer. */
  read(offset: number, buffer: Uint8Array, pipe?: PipeBuffer, watch?: ResendWatch | null): Promise<void> {
    return this.#payload(Command.READ, 0, offset, buffer, pipe, watch);
  }

  /** With `fua` it is on stable storage when it resolves; NOT_SUPPORTED where the server cannot. */
  write(offset: number, buffer: Uint8Array, options: WriteOptions = {}): Promise<void> {
    const { fua, pipe, watch } = options;
    if (fua !== true) return this.#payload(Command.WRITE, 0, offset, buffer, pipe, watch);
    return this.canFua ? this.#payload(Command.WRITE, CommandFlag.FUA, offset, buffer, pipe, watch) : Promise.reject(this.#cannot('force unit access'));
  }

  /** All that was written before is on stable storage when it resolves; at once where the server has nothing to flush. */
  async flush(): Promise<void> {
    if (this.#has(TransmissionFlag.SEND_FLUSH)) await this.#pool.flush(new NbdRequest(Command.FLUSH, 0, 0, 0, null));
  }

  async writeZeroes(offset: number, bytes: number, options: ZeroOptions = {}): Promise<void> {
    if (!this.canZero) throw this.#cannot('write zeroes');
    if (options.fast === true && !this.canZeroFast) throw this.#cannot('tell whether zeroes are fast');
    const flags = this.#fua(options.fua) + (options.noHole === true ? CommandFlag.NO_HOLE : 0) + (options.fast === true ? CommandFlag.FAST_ZERO : 0);
    return this.#plain(Command.WRITE_ZEROES, flags, offset, bytes);
  }

  async trim(offset: number, bytes: number): Promise<void> {
    if (!this.canTrim) throw this.#cannot('trim');
    return this.#plain(Command.TRIM, 0, offset, bytes);
  }

  /** Asks the server to have the range at hand. */
  async cache(offset: number, bytes: number): Promise<void> {
    if (!this.#has(TransmissionFlag.SEND_CACHE)) throw this.#cannot('cache');
    return this.#plain(Command.CACHE, 0, offset, bytes);
  }

  /** Extents from `offset` on: at least one, together at most `bytes` (the server decides how far it looks). `one` asks for the first only. */
  async blockStatus(offset: number, bytes: number, context: string = BASE_ALLOCATION, one = false): Promise<NbdExtent[]> {
    if (!this.info.contexts.has(context)) throw this.#cannot(`tell '${context}'`);
    const request = new NbdRequest(Command.BLOCK_STATUS, one ? CommandFlag.REQ_ONE : 0, offset, Math.min(bytes, LARGEST_STATUS), null);
    await this.#pool.submit(request);
    const extents = request.extents!.get(context);
    if (extents !== undefined) return extents;
    throw new BlockError('PROTOCOL', `'${this.name}' left '${context}' out of a block status`, { node: this.name, errno: 'EIO' });
  }

  /** Fails what the server has not answered; the connection is left, and made anew when it is needed. */
  cancelInFlight(): void { this.#pool.cancelInFlight(); }

  /** Says goodbye to the server. Nothing may be in flight. Idempotent. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #has(flag: number): boolean {
    return (this.info.flags & flag) !== 0;
  }

  #fua(fua: boolean | undefined): number {
    if (fua !== true) return 0;
    if (!this.canFua) throw this.#cannot('force unit access');
    return CommandFlag.FUA;
  }

  #payload(command: number, flags: number, offset: number, buffer: Uint8Array, pipe?: PipeBuffer, watch: ResendWatch | null = null): Promise<void> {
    const bytes = buffer.byteLength;
    const most = this.info.maximumBlock;
    if (bytes === 0) return Promise.resolve();
    if (bytes <= most) {
      const request = new NbdRequest(command, flags, offset, bytes, buffer, pipe);
      request.watch = watch;
      return this.#pool.submit(request);
    }
    assert(pipe?.inKernel !== true, 'more in a pipe than the server takes');
    const parts: NbdRequest[] = [];
    for (let at = 0; at < bytes; at += most) {
      const part = Math.min(most, bytes - at);
      parts.push(new NbdRequest(command, flags, offset + at, part, buffer.subarray(at, at + part)));
    }
    return this.#all(parts);
  }

  #plain(command: number, flags: number, offset: number, bytes: number): Promise<void> {
    const most = alignDown(GiB, Math.max(this.info.minimumBlock, 1));
    const parts: NbdRequest[] = [];
    for (let at = 0; at < bytes; at += most) parts.push(new NbdRequest(command, flags, offset + at, Math.min(most, bytes - at), null));
    return this.#all(parts);
  }

  /** Waits for all, so that no buffer is in use any more; throws the first error. */
  async #all(parts: readonly NbdRequest[]): Promise<void> {
    const settled = await Promise.allSettled(parts.map((part) => this.#pool.submit(part)));
    for (const one of settled) if (one.status === 'rejected') throw one.reason;
  }

  #cannot(what: string): BlockError {
    return new BlockError('NOT_SUPPORTED', `the NBD server '${this.name}' cannot ${what}`, { node: this.name, errno: 'ENOTSUP' });
  }
}
