/**
 * Which regions of a disk may differ from its copy, on the disk before that can be: a request that changes a clean region
 * waits until the region is marked there. Regions become clean again at checkpoints, once both disks are known to have
 * the same on them for good.
 */
import { assert } from '../../base/assert.js';
import type { Clock } from '../../base/clock.js';
import type { BitArray } from '../../block/bit-array.js';
import type { JournalSector, SectorFile } from './files.js';
import { bitsSector, leaseSector, regionCount, sectorOf, type Geometry } from './region-file.js';

/** Of what is durable: longer than a machine takes to start is too long. */
const LEASE_MS = 2000;
/** Of what only processes of this boot see, while something is under way: in that time nobody starts after a kill, and writes. */
const SHORT_LEASE_MS = 10;
const BEAT_MS = 4;
/** Each of them costs a flush of the journal, or a part of one. */
const MANY_MARKS = 100;
const MOST_KEPT = 64;
/** After so long without anything under way the files' times tell of every change: the clock that they are taken from ticks more often. */
const QUIET_MS = 20;

export interface WriteIntentOptions {
  readonly geometry: Geometry;
  readonly boot: string;
  readonly clock: Clock;
  /** Holds `dirty`, and a lease that has not begun yet. */
  readonly file: SectorFile;
  readonly dirty: BitArray;
  /** What the files of both disks are now (`stateOf`); null where they do not tell. */
  readonly states: () => Promise<readonly string[] | null>;
  /** The journal cannot be written any more: a crash from here on means a full copy. */
  readonly onLost?: ((error: unknown) => void) | undefined;
}

/** What a checkpoint asks of its job. */
export interface CheckpointJob {
  /** `flush` is due even where no mark can go. */
  readonly always?: boolean | undefined;
  /** The range needs no mark: the copy has what the disk has, and nothing is on its way; or `flush` notes elsewhere what of it differs. */
  isCovered(offset: number, bytes: number): boolean;
  /** Makes that last, and what both disks were told before: as it is in the moment of the call. */
  flush(): Promise<void>;
}

export class WriteIntent {
  readonly #options: WriteIntentOptions;
  readonly #count: number;
  /** What the disk says, but for what is on its way there. */
  readonly #marked: BitArray;
  /** Regions whose mark is being written or taken away. */
  readonly #unsettled = new Set<number>();
  /** What the checkpoint under way may make clean, and what it will with the next commit. Who begins to change takes his regions out. */
  #candidates = new Set<number>();
  #toClear = new Set<number>();
  #wanted = new Set<number>();
  #waiters: (() => void)[] = [];
  /** How many requests are under way in a region. */
  readonly #inFlight = new Map<number, number>();
  /** Changed since the last checkpoint began: it will be changed again soon. */
  #touched = new Set<number>();
  /** Since the last checkpoint. */
  #newMarks = 0;
  /** Of the commits. */
  #slowestMs = 0;
  /** Whether marks have gone since they were last found to be wanted back, for how many checkpoints they stay, and for how many it was the last time. */
  #cleared = false;
  #keeping = 0;
  #kept = 0;
  #leaseMs = -Infinity;
  #shortLeaseMs = -Infinity;
  /** How many requests are under way, and when the last one ended. */
  #active = 0;
  #begunCount = 0;
  #quietSinceMs = -Infinity;
  #beating: AbortController | null = null;
  /** Says in the file that nothing is under way. */
  #sealed = false;
  #committing: Promise<void> | null = null;
  #lost = false;
  #closed = false;

  constructor(options: WriteIntentOptions) {
    this.#options = options;
    this.#count = regionCount(options.geometry);
    this.#marked = options.dirty.copy();
  }

  get lost(): boolean { return this.#lost; }
  /** Bytes that a resumed job would copy. */
  get dirtyBytes(): number { return Math.min(this.#options.geometry.length, this.#marked.ones * this.#options.geometry.regionBytes); }

  /**
   * Before anything changes the range. Null: at once; it must then begin in the same turn of the event loop. The caller
   * says `ended` in any case.
   */
  begin(offset: number, bytes: number): Promise<void> | null {
    let ready = true;
    this.#active++;
    this.#begunCount++;
    this.#each(offset, bytes, (region) => {
      this.#inFlight.set(region, (this.#inFlight.get(region) ?? 0) + 1);
      this.#touched.add(region);
      this.#candidates.delete(region);
      this.#toClear.delete(region);
      if (this.#isMarked(region)) return;
      this.#wanted.add(region);
      ready = false;
    });
    if (this.#lost) return this.#passUnmarked();
    const now = this.#options.clock.wallMs();
    if (!ready || now >= this.#leaseMs) return this.#commit().then(() => this.#begun(offset, bytes));
    if (now >= this.#leaseMs - LEASE_MS / 2) void this.#commit();
    this.touch();
    return null;
  }

  /** The range's content and all who watch it have settled. */
  ended(offset: number, bytes: number): void {
    this.#active--;
    this.#quietSinceMs = this.#options.clock.monotonicMs();
    this.#each(offset, bytes, (region) => {
      const left = this.#inFlight.get(region)! - 1;
      if (left === 0) this.#inFlight.delete(region);
      else this.#inFlight.set(region, left);
    });
    this.touch(); // a slow one may have come to the file only now
  }

  /** The files of the disks may change now, whatever for. */
  touch(): void {
    if (this.#lost || this.#closed) return;
    if (this.#sealed || this.#options.clock.wallMs() >= this.#shortLeaseMs - SHORT_LEASE_MS + 1) this.#note();
    if (this.#beating !== null) return;
    this.#beating = new AbortController();
    void this.#beat(this.#beating.signal);
  }

  #note(states?: readonly string[]): void {
    const { geometry, boot, file, clock } = this.#options;
    const now = clock.wallMs();
    try {
      file.note(leaseSector(geometry, 1, { untilMs: now + SHORT_LEASE_MS, boot, states }));
      this.#shortLeaseMs = now + SHORT_LEASE_MS;
      this.#sealed = states !== undefined;
    } catch (error) {
      this.#lose(error);
    }
  }

  /** Tells again and again that somebody is alive who changes something, and at last what everything has come to. */
  async #beat(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (this.#beating !== null) {
      await clock.sleep(BEAT_MS, signal);
      if (signal.aborted || this.#lost) this.#beating = null;
      else if (this.#active > 0) this.#note();
      else if (clock.monotonicMs() >= this.#quietSinceMs + QUIET_MS) await this.#seal();
    }
  }

  /** Unless something begins meanwhile. */
  async #seal(): Promise<void> {
    const begun = this.#begunCount;
    const states = await this.#options.states().catch(() => null);
    if (this.#begunCount !== begun || this.#lost || this.#closed) return;
    if (states !== null) this.#note(states);
    this.#beating = null;
  }

  /** Takes marks away where nobody needs them any more. Throws what the flush throws; nothing has changed then. */
  async checkpoint(job: CheckpointJob): Promise<void> {
    if (this.#lost) return;
    const touched = this.#touched;
    this.#touched = new Set();
    const clear = new Set<number>();
    if (this.#mayClear()) for (let region = this.#marked.nextSet(0, this.#count); region < this.#count; region = this.#marked.nextSet(region + 1, this.#count)) {
      if (!touched.has(region) && this.#isCovered(region, job)) clear.add(region);
    }
    if (clear.size === 0 && job.always !== true) return;
    this.#candidates = clear;
    try {
      await job.flush();
      if (this.#closed) return;
      for (const region of clear) if (this.#isCovered(region, job)) this.#toClear.add(region);
    } finally {
      this.#candidates = new Set();
    }
    await this.#commit();
  }

  /** Marks that come back at once cost more than they save: where many do, they stay, and twice as long each time. */
  #mayClear(): boolean {
    const many = this.#newMarks > MANY_MARKS;
    this.#newMarks = 0;
    if (many && this.#cleared) this.#keeping = this.#kept = Math.min(MOST_KEPT, Math.max(1, 2 * this.#kept));
    else if (!many && this.#cleared) this.#kept = 0;
    this.#cleared = !many && this.#keeping === 0;
    if (this.#keeping > 0) this.#keeping--;
    return this.#cleared;
  }

  /** Nothing of it is under way any more. */
  async close(): Promise<void> {
    await this.#stop();
    await this.#options.file.close();
  }

  /** As close, for a job that is to go on later: nobody changes the files any more from now on, or it will be known. */
  async closeSealed(): Promise<void> {
    await this.#stop();
    const { geometry, boot, file, clock, states } = this.#options;
    try {
      await clock.sleep(QUIET_MS);
      const told = this.#lost ? null : await states();
      const lease = { untilMs: clock.wallMs(), boot, states: told ?? undefined };
      if (told !== null) await file.write([leaseSector(geometry, 0, lease), leaseSector(geometry, 1, lease)]);
    } finally {
      await file.close();
    }
  }

  async #stop(): Promise<void> {
    this.#closed = true;
    this.#beating?.abort();
    while (this.#committing !== null) await this.#committing;
  }

  /** On the disk, and to stay there. */
  #isMarked(region: number): boolean {
    return this.#marked.get(region) && !this.#unsettled.has(region);
  }

  #isCovered(region: number, job: CheckpointJob): boolean {
    const { regionBytes, length } = this.#options.geometry;
    const offset = region * regionBytes;
    return !this.#inFlight.has(region) && job.isCovered(offset, Math.min(regionBytes, length - offset));
  }

  /** A commit that began before may have come too early, and a lease runs out. */
  async #begun(offset: number, bytes: number): Promise<void> {
    for (;;) {
      if (this.#lost) return this.#passUnmarked();
      let ready = this.#options.clock.wallMs() < this.#leaseMs;
      this.#each(offset, bytes, (region) => { if (!this.#isMarked(region)) ready = false; });
      if (ready) return this.touch();
      await this.#commit();
    }
  }

  /** What changes from now on is later than the journal says it can be: who finds that does not trust it. */
  async #passUnmarked(): Promise<void> {
    const { clock } = this.#options;
    for (let left = this.#leaseEnd() - clock.wallMs(); left >= 0; left = this.#leaseEnd() - clock.wallMs()) await clock.sleep(left + QUIET_MS);
  }

  #leaseEnd(): number {
    return Math.max(this.#leaseMs, this.#shortLeaseMs);
  }

  /** Resolves when all that is wanted now is durable, or the journal is lost. */
  #commit(): Promise<void> {
    const waiting = new Promise<void>((resolve) => { this.#waiters.push(resolve); });
    this.#committing ??= this.#run().finally(() => { this.#committing = null; });
    return waiting;
  }

  async #run(): Promise<void> {
    while (this.#waiters.length > 0) {
      const waiters = this.#waiters.splice(0);
      if (!this.#lost) await this.#write().catch((error: unknown) => this.#lose(error));
      for (const resolve of waiters) resolve();
    }
  }

  async #write(): Promise<void> {
    const { geometry, boot, clock, file } = this.#options;
    const sectors = new Set<number>();
    assert(this.#unsettled.size === 0, 'one commit at a time');
    for (const [regions, mark] of [[this.#toClear, false], [this.#wanted, true]] as const) {
      for (const region of regions) {
        if (mark) this.#marked.set(region, region + 1);
        else this.#marked.clear(region, region + 1);
        this.#unsettled.add(region);
        sectors.add(sectorOf(region));
      }
    }
    this.#newMarks += this.#wanted.size;
    this.#wanted = new Set();
    this.#toClear = new Set();
    const began = clock.monotonicMs();
    // on a disk that takes seconds for a flush, it must not be over before it is there
    const untilMs = clock.wallMs() + LEASE_MS + 2 * this.#slowestMs;
    const content: JournalSector[] = [leaseSector(geometry, 0, { untilMs, boot }), ...[...sectors].map((index) => bitsSector(geometry, index, this.#marked))];
    await file.write(content);
    this.#slowestMs = Math.max(this.#slowestMs, clock.monotonicMs() - began);
    this.#unsettled.clear();
    this.#leaseMs = untilMs;
  }

  #lose(error: unknown): void {
    if (this.#lost) return;
    this.#lost = true;
    // what failed to be written may be on the disk nevertheless
    this.#leaseMs = Math.max(this.#leaseMs, this.#options.clock.wallMs() + LEASE_MS + 2 * this.#slowestMs);
    this.#options.onLost?.(error);
  }

  #each(offset: number, bytes: number, visit: (region: number) => void): void {
    const { regionBytes } = this.#options.geometry;
    const end = Math.min(this.#count, Math.ceil((offset + bytes) / regionBytes));
    for (let region = Math.floor(offset / regionBytes); region < end; region++) visit(region);
  }
}
