/** One request of the client on its way, and what has come back of it so far. */
import { formatRange } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { PipeBuffer } from '../base/pipe-buffer.js';
import { Command, WIRE_TO_ERRNO } from './protocol.js';

export interface NbdExtent {
  readonly bytes: number;
  /** The context's bits: Allocation for `base:allocation`, 1 = dirty for a bitmap, a depth for `qemu:allocation-depth`. */
  readonly flags: number;
}

const VERBS: Readonly<Record<number, string>> = {
  [Command.READ]: 'read', [Command.WRITE]: 'write', [Command.FLUSH]: 'flush', [Command.TRIM]: 'trim', [Command.CACHE]: 'cache',
  [Command.WRITE_ZEROES]: 'zero', [Command.BLOCK_STATUS]: 'get the block status of',
};
/** A server that answers a read in more scattered pieces than this is not one to wait for. */
const MAX_SCATTERED = 4096;

/** Hears when a request that was not answered has to be sent again, and when it is. */
export interface ResendWatch {
  requeued(): void;
  issued(): void;
}

export class NbdRequest {
  readonly command: number;
  /** CommandFlag bits. */
  readonly flags: number;
  readonly offset: number;
  readonly bytes: number;
  /** Payload of a write, destination of a read. */
  readonly buffer: Uint8Array | null;
  /** Where the payload is or goes instead, as long as it is `inKernel`. */
  readonly pipe: PipeBuffer | null;
  watch: ResendWatch | null = null;
  #again = false;
  resolve: () => void = () => {};
  reject: (error: unknown) => void = () => {};
  /** The first error that the server told. */
  error: BlockError | null = null;
  /** By the name of the context. */
  extents: Map<string, NbdExtent[]> | null = null;
  /** A read's bytes that came in order from its start. */
  #covered = 0;
  /** Pieces that came out of order: start → end, never adjacent to each other or to `#covered`. */
  #scattered: [number, number][] = [];

  constructor(command: number, flags: number, offset: number, bytes: number, buffer: Uint8Array | null, pipe: PipeBuffer | null = null) {
    this.command = command;
    this.flags = flags;
    this.offset = offset;
    this.bytes = bytes;
    this.buffer = buffer;
    this.pipe = pipe;
  }

  /** False where its payload cannot be had once more. */
  get repeatable(): boolean { return this.command !== Command.WRITE || this.pipe?.inKernel !== true; }

  /** It goes to the server, now or once more. */
  sent(): void {
    if (this.#again) this.watch?.issued();
    this.#again = false;
  }

  /** Before it is sent again. */
  reset(): void {
    this.#again = true;
    this.watch?.requeued();
    if (this.command === Command.READ) this.pipe?.restart();
    this.error = null;
    this.extents = null;
    this.#covered = 0;
    this.#scattered = [];
  }

  /** Notes that `[at, at + bytes)` of a read, counted from its start, has come. False where it lies outside or has come before. */
  cover(at: number, bytes: number): boolean {
    if (at < 0 || bytes <= 0 || at > this.bytes || bytes > this.bytes - at) return false;
    if (at === this.#covered && this.#scattered.length === 0) {
      this.#covered += bytes;
      return true;
    }
    return this.#scatter(at, at + bytes);
  }

  get complete(): boolean { return this.#covered === this.bytes; }

  fail(errnoValue: number, node: string, said: string): void {
    const errno = WIRE_TO_ERRNO[errnoValue] ?? 'EINVAL';
    const what = this.command === Command.FLUSH ? `Could not flush '${node}'` : `Could not ${VERBS[this.command]} ${formatRange(this.offset, this.bytes)} of '${node}'`;
    const code = errno === 'ENOTSUP' ? 'NOT_SUPPORTED' : errno === 'ENOSPC' ? 'NO_SPACE' : 'IO';
    this.error ??= new BlockError(code, `${what}: the NBD server answered ${errno}${said === '' ? '' : ` (${said})`}`,
      { node, errno, offset: this.offset, bytes: this.bytes });
  }

  #scatter(start: number, end: number): boolean {
    if (start < this.#covered) return false;
    const ranges = this.#scattered;
    let index = ranges.findIndex((range) => range[0] >= start);
    if (index < 0) index = ranges.length;
    const before = ranges[index - 1];
    const after = ranges[index];
    if ((before !== undefined && before[1] > start) || (after !== undefined && after[0] < end)) return false;
    const joinsBefore = before !== undefined && before[1] === start;
    const joinsAfter = after !== undefined && after[0] === end;
    ranges.splice(index - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0),
      [joinsBefore ? before[0] : start, joinsAfter ? after[1] : end]);
    if (ranges[0]![0] === this.#covered) this.#covered = ranges.shift()![1];
    return ranges.length <= MAX_SCATTERED;
  }
}
