/** The target of a mirror: requests that can be given up when it does not answer, and how it is doing. */
import { BlockError } from '../../base/errors.js';
import type { PipeBuffer } from '../../base/pipe-buffer.js';
import type { Clock } from '../../base/clock.js';
import type { BlockBackend } from '../../block/backend.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import { forgiveLosses, refuseLoss } from '../../block/lost-writes.js';
import type { BlockNode } from '../../block/node.js';
import { makeRequest, type BlockOp, type BlockRequest } from '../../block/request.js';
import { UnflushedWrites, type FailedFlush } from '../../block/unflushed-writes.js';
import { usesNetwork } from '../../image/chain.js';

/** So long a server may still answer before it is given up, and then the job ends whatever it does. */
const ANSWER_GRACE_MS = 500;
const CANCEL_GRACE_MS = 200;

interface Pending {
  readonly sinceMs: number;
  readonly giveUp: (error: BlockError) => void;
}

interface TargetOptions {
  readonly door: BlockBackend;
  readonly clock: Clock;
  readonly granularity: number;
  /** Bytes of the source. */
  readonly size: number;
  /** What the target took is not known to be there: it is to be copied again. */
  readonly onLost: (lost: DirtyBitmap) => void;
  /** Copying again does not make it good. */
  readonly onBroken: (error: BlockError) => void;
}

export class MirrorTarget {
  readonly door: BlockBackend;
  readonly #clock: Clock;
  readonly #onLost: (lost: DirtyBitmap) => void;
  readonly #onBroken: (error: BlockError) => void;
  readonly #unflushed: UnflushedWrites;
  /** Oldest first. */
  readonly #pending = new Set<Pending>();
  /** Abandoned or not. */
  readonly #underWay = new Set<Promise<unknown>>();
  #abandoned = false;
  /** Of those who wait for something else than its answers. */
  readonly #givingUp = new Set<() => void>();
  #slowestMs = 0;
  #lastEndMs = -Infinity;

  constructor({ door, clock, granularity, size, onLost, onBroken }: TargetOptions) {
    this.door = door;
    this.#clock = clock;
    this.#onLost = onLost;
    this.#onBroken = onBroken;
    this.#unflushed = new UnflushedWrites(door.node, granularity, size);
  }

  get length(): number { return this.door.node.length(); }
  /** Nobody waits any more for what it answers. */
  get abandoned(): boolean { return this.#abandoned; }
  /** In a drained section. Nobody may wait for its end who holds something that the section may need. */
  get draining(): boolean { return this.door.node.draining; }
  undrained(): Promise<void> { return this.door.node.resumed(); }

  /** For how long it has ended no request, though it was asked; 0 where it is not. */
  get silentMs(): number {
    for (const { sinceMs } of this.#pending) return this.#clock.monotonicMs() - Math.max(sinceMs, this.#lastEndMs);
    return 0;
  }

  /** The slowest request that has ended since this was asked for the last time. */
  takeSlowestMs(): number {
    const slowest = this.#slowestMs;
    this.#slowestMs = 0;
    return slowest;
  }

  send(op: BlockOp, offset: number, bytes: number, buffer: Uint8Array | null, flags = 0, pipe?: PipeBuffer): Promise<void> {
    return this.submit(makeRequest(op, offset, bytes, buffer, flags, 'background', pipe));
  }

  /** Rejects with CANCELLED once the target is abandoned, and with BUSY where it is drained: try again later. */
  submit(request: BlockRequest): Promise<void> {
    return this.ask(() => this.door.submit(request).then(() => {
      if (request.op !== 'flush') this.#unflushed.wrote(request.offset, request.bytes);
    }));
  }

  /** What else is asked of it; rejects as `submit` does. */
  ask<T>(question: () => Promise<T>): Promise<T> {
    if (this.#abandoned) return Promise.reject(abandonment());
    if (this.draining) return Promise.reject(new BlockError('BUSY', 'the target is drained'));
    return new Promise((resolve, reject) => {
      const pending: Pending = { sinceMs: this.#clock.monotonicMs(), giveUp: reject };
      this.#pending.add(pending);
      const ended = (): void => {
        this.#underWay.delete(asked);
        this.#lastEndMs = this.#clock.monotonicMs();
        if (this.#pending.delete(pending)) this.#slowestMs = Math.max(this.#slowestMs, this.#lastEndMs - pending.sinceMs);
      };
      const asked = question();
      this.#underWay.add(asked);
      asked.then((answer) => {
        ended();
        resolve(answer);
      }, (error: unknown) => {
        ended();
        reject(error);
      });
    });
  }

  /**
   * All that was written before lasts when it resolves. Where it rejects, what may be lost has been told: a disk that failed
   * to flush may have dropped it, and the next flush knows nothing of that; a server may have been started again.
   */
  flush(): Promise<void> {
    return this.#unflushed.flush(() => this.send('flush', 0, 0, null), (failure) => this.#flushFailed(failure));
  }

  #flushFailed({ error, lost, ranges }: FailedFlush): never {
    if (this.#abandoned || (!lost && isRefusedForNow(error))) {
      this.#unflushed.keep(ranges);
      throw error ?? abandonment();
    }
    if (ranges.count > 0) this.#onLost(ranges);
    const broken = lost ? refuseLoss(this.door.node) : null;
    if (broken !== null) this.#onBroken(broken);
    else forgiveLosses(this.door.node);
    throw error ?? new BlockError('BUSY', 'the target lost what was written, and gets it again');
  }

  /** Resolves when it uses nothing any more of what it was lent. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /**
   * Whether all that it was sent has arrived, or never will: true when nothing is under way any more. A server that does not
   * answer for a moment is given up; false where that changes nothing.
   */
  async answers(): Promise<boolean> {
    const settled = this.settled();
    const { node } = this.door;
    if (usesNetwork(node) && !await this.#within(ANSWER_GRACE_MS, settled)) {
      cancelInFlight(node);
      return this.#within(CANCEL_GRACE_MS, settled);
    }
    await settled;
    return true;
  }

  async #within(ms: number, work: Promise<void>): Promise<boolean> {
    const done = new AbortController();
    void work.then(() => done.abort());
    await this.#clock.sleep(ms, done.signal);
    return done.signal.aborted;
  }

  /** What is under way fails at once for those who wait for it; memory lent to it stays lent. */
  abandon(): void {
    this.#abandoned = true;
    for (const { giveUp } of this.#pending) giveUp(abandonment());
    this.#pending.clear();
    for (const giveUp of this.#givingUp) giveUp();
    this.#givingUp.clear();
  }

  /** What the work comes to, or null once the target is abandoned. */
  unlessAbandoned<T>(work: Promise<T>): Promise<T | null> {
    if (this.#abandoned) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      const giveUp = (): void => resolve(null);
      this.#givingUp.add(giveUp);
      void work.finally(() => this.#givingUp.delete(giveUp)).then(resolve, reject);
    });
  }
}

/** An image whose own structures may be in flight as well waits for its server. */
function cancelInFlight(target: BlockNode): void {
  let node: BlockNode | undefined = target;
  while (node !== undefined && (node.driver.kind === 'filter' || node.driver.formatName === 'raw')) node = node.children[0]?.node;
  if (node !== undefined && node.inFlight > 0) node.driver.cancelInFlight?.();
}

/** The target is drained, or behind; it has not failed. */
export function isRefusedForNow(error: unknown): boolean {
  return error instanceof BlockError && error.code === 'BUSY';
}

function abandonment(): BlockError {
  return new BlockError('CANCELLED', 'Operation canceled', { errno: 'ECANCELED' });
}
