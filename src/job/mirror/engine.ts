/** A mirror's work from its start to the moment in which source and target are equal and the source stands still. */
import { BlockError } from '../../base/errors.js';
import type { BlockNode } from '../../block/node.js';
import type { JobContext } from '../job.js';
import type { Copier } from './copier.js';
import type { MirrorState } from './state.js';
import { isRefusedForNow } from './target.js';
import type { MirrorVerifier } from './verify.js';
import { events } from '../../trace/events.js';

/** How long a mirror that has nothing to do looks away, as in QEMU. */
const IDLE_MS = 100;
/** After an error that is ignored, for a target that fails everything must not keep the process busy, and while it has not answered all. */
const RETRY_MS = 20;
/** The event loop gets its turn at least this often, where all I/O ends at once. */
const TURN_MS = 10;

export interface EngineOptions {
  /** The node that users' requests come in at, then the source: to be drained in this order. */
  readonly drained: readonly BlockNode[];
  /** Finds what is dirty at first; may write to the target. */
  readonly begin: (context: JobContext) => Promise<void>;
  /** From now on users' writes may go to the target too. */
  readonly onBegun: () => void;
  /** Compares both before the end. */
  readonly verifier?: MirrorVerifier | undefined;
  /** The target has all that it was told, for good. */
  readonly onFlushed: () => void;
}

export class MirrorEngine {
  readonly state: MirrorState;
  readonly copier: Copier;
  readonly #options: EngineOptions;
  #completing = false;
  #ready = false;
  #lastTurnMs = 0;
  /** Ends the drained section in which `run` ended. */
  #letGo: (() => void) | null = null;

  constructor(state: MirrorState, copier: Copier, options: EngineOptions) {
    this.state = state;
    this.copier = copier;
    this.#options = options;
  }

  /** Told to complete: source and target change places at the end. */
  get completing(): boolean { return this.#completing; }

  /** The source stands still, until `letGo`. */
  get drained(): boolean { return this.#letGo !== null; }

  complete(): void {
    this.#completing = true;
  }

  /** Resolves when all is copied; the source is then drained, until `letGo`. */
  async run(context: JobContext): Promise<void> {
    const { state } = this;
    events.log?.emit('mirror_start', state.parts.source.node, state, this);
    state.onProgress = (done, total) => context.progress(done, total);
    try {
      if (state.length > 0) {
        await this.#options.begin(context);
        this.#options.onBegun();
        await this.#loop(context);
      } else {
        this.#becomeReady(context);
        while (!this.#mustEnd(context)) await context.sleep(Infinity);
      }
    } finally {
      state.stopped = true;
      await this.copier.idle();
      this.copier.close();
    }
  }

  letGo(): void {
    this.#letGo?.();
    this.#letGo = null;
  }

  #mustEnd(context: JobContext): boolean {
    return this.#completing || context.cancelRequested;
  }

  #becomeReady(context: JobContext): void {
    this.#tell(context);
    this.#ready = true;
    context.becomeReady();
  }

  #tell(context: JobContext): void {
    const { state } = this;
    state.total = state.done + state.remaining;
    context.progress(state.done, state.total);
  }

  async #loop(context: JobContext): Promise<void> {
    const { state, copier } = this;
    const { target } = state.parts;
    for (;;) {
      state.throwIfFailed();
      await context.pausePoint();
      this.#tell(context);
      const dirty = state.bitmap.count > 0;
      if (copier.inFlight > 0 && (!dirty || copier.full)) {
        await copier.oneEnded();
      } else if (target.draining) {
        await target.undrained();
      } else if (dirty) {
        await copier.step((bytes) => state.parts.blockJob.spend(bytes));
        await this.#pace(context);
      } else if (await this.#inSync(context)) {
        return;
      }
    }
  }

  /** Nothing is dirty and nothing in flight. Returns whether this is the end. */
  async #inSync(context: JobContext): Promise<boolean> {
    const { state } = this;
    if (state.unattended > 0) {
      await context.sleep(RETRY_MS);
      return false;
    }
    if (!this.#ready) {
      if (!await this.#flush(context)) return false;
      this.#becomeReady(context);
    }
    if (state.bitmap.count > 0) return false;
    if (state.copyMode === 'write-blocking') state.activelySynced = true;
    if (!this.#mustEnd(context)) {
      events.log?.emit('mirror_before_sleep', this.state, this.state.bitmap.count, true, IDLE_MS * 1e6);
      await context.sleep(IDLE_MS);
      return false;
    }
    if (!await this.#verify((verifier) => verifier.some())) return false;
    const letGo = await this.#drain();
    let ended = false;
    try {
      ended = await this.#equalNow(context);
    } finally {
      if (!ended) letGo(); // users go on, also where a cancel ended the wait for another try
    }
    if (!ended) return false;
    this.#tell(context);
    // QEMU tells of a job that keeps its source drained that it is paused
    state.parts.blockJob.job.holdPaused();
    this.#letGo = () => {
      state.parts.blockJob.job.releasePaused();
      letGo();
    };
    return true;
  }

  /** While users wait: nothing is left to be copied or compared, or on its way, and the target has it for good. */
  async #equalNow(context: JobContext): Promise<boolean> {
    const { state } = this;
    if (state.bitmap.count > 0 || state.unattended > 0 || state.failed || (this.#options.verifier?.left ?? 0) > 0) return false;
    return await this.#flush(context) && state.bitmap.count === 0;
  }

  /** Whether it is time to go on: `section` says so, or there is nothing to compare. */
  async #verify(section: (verifier: MirrorVerifier) => Promise<boolean>): Promise<boolean> {
    const { verifier } = this.#options;
    if (verifier === undefined) return true;
    try {
      return await section(verifier);
    } catch (error) {
      if (!this.state.parts.target.abandoned && !isRefusedForNow(error)) this.state.fail(error);
      return false;
    }
  }

  /** What is left to be compared is compared while users wait, and the source itself can still be read. */
  async #drain(): Promise<() => void> {
    events.log?.emit('mirror_before_drain', this.state, this.state.bitmap.count);
    const [entrance, ...others] = this.#options.drained;
    const letGo = await drainAll([entrance!]);
    // what a writer did not wait for may still be on its way: the source has it, and the target not yet
    if (this.state.bitmap.count === 0 && this.state.unattended === 0) await this.#verify(async (verifier) => verifier.rest().then(() => true));
    const letOthersGo = await drainAll(others);
    return () => {
      letOthersGo();
      letGo();
    };
  }

  async #flush(context: JobContext): Promise<boolean> {
    try {
      events.log?.emit('mirror_before_flush', this.state);
      await this.state.parts.target.flush();
      this.#options.onFlushed();
      return true;
    } catch (error) {
      if (!this.state.parts.target.abandoned) this.state.flushFailed(error);
      if (!context.cancelled && !this.state.failed) await context.sleep(RETRY_MS);
      return false;
    }
  }

  /** Keeps to the rate limit, which no longer counts when all was copied once, and lets others have their turn. */
  async #pace(context: JobContext): Promise<void> {
    const { blockJob } = this.state.parts;
    if (!this.#ready || this.#mustEnd(context)) {
      const ms = blockJob.spend(0);
      // a resume, and a higher speed, end the sleep: as with QEMU the next piece follows at once
      if (ms > 0 && !this.state.failed) await context.sleep(ms);
    }
    if (this.state.takeErrors() > 0) await context.sleep(RETRY_MS);
    const now = blockJob.clock.monotonicMs();
    if (now - this.#lastTurnMs < TURN_MS) return;
    await new Promise((resolve) => { setImmediate(resolve); });
    this.#lastTurnMs = blockJob.clock.monotonicMs();
  }
}

/** Resolves when nothing is in flight at any of the nodes, each of which stays drained until the function is called. */
export async function drainAll(nodes: readonly BlockNode[]): Promise<() => void> {
  const ends: (() => void)[] = [];
  for (const node of nodes) {
    await new Promise<void>((entered) => {
      void node.drained(() => new Promise<void>((end) => {
        ends.push(end);
        entered();
      }));
    });
  }
  return () => { for (const end of ends.reverse()) end(); };
}

export function differentSizes(): BlockError {
  return new BlockError('INVALID_ARGUMENT', 'Source and target image have different sizes', { errno: 'EINVAL' });
}
