/** `-t`: how long each request waited for its allocation, its dispatch and its completion, by start sector as blkparse tells requests apart. */
import type { ProcessTable } from './processes.js';
import type { ProcessNames } from './processes.js';

/** No such time: nothing is printed. */
export const NO_TIME = -1;
/**
 * The request is known and when its step began is not (no I before D, say). blkparse then prints what memory held before; here it is not
 * printed, or 0 where a format demands it.
 */
export const UNKNOWN_TIME = -2;

/** Requests that are under way; of more the oldest are forgotten. */
const MAX_TRACKS = 0x10_0000;

interface Track {
  readonly pid: number;
  allocated: number;
  inserted: number;
  issued: number;
}

const Wait = { ALLOCATION: 0, DISPATCH: 2, COMPLETION: 4 } as const;

export class Tracker {
  readonly #names: ProcessNames;
  readonly #processes: ProcessTable | null;

  constructor(names: ProcessNames, processes: ProcessTable | null) {
    this.#names = names;
    this.#processes = processes;
  }

  allocated(tracks: Map<number, Track>, pid: number, sector: number, time: number): void {
    this.#findOrAdd(tracks, pid, sector).allocated = time;
  }

  /** Remapped devices (md, dm) have no steps between being queued and completed. */
  queuedAtRemapper(tracks: Map<number, Track>, pid: number, sector: number, time: number): void {
    this.#findOrAdd(tracks, pid, sector).issued = time;
  }

  /** The request now begins that much earlier. */
  frontMerged(tracks: Map<number, Track>, sector: number, sectors: number): void {
    const track = tracks.get(sector + sectors);
    if (track === undefined) return;
    tracks.delete(sector + sectors);
    if (!tracks.has(sector)) tracks.set(sector, track);
  }

  inserted(tracks: Map<number, Track>, pid: number, sector: number, time: number, write: number): number {
    const track = this.#findOrAdd(tracks, pid, sector);
    track.inserted = time;
    // blkparse takes an allocation at time 0 for none
    return track.allocated > 0 ? this.#wait(track, Wait.ALLOCATION + write, time - track.allocated) : NO_TIME;
  }

  issued(tracks: Map<number, Track>, sector: number, time: number, write: number): number {
    const track = tracks.get(sector);
    if (track === undefined) return NO_TIME;
    track.issued = time;
    return this.#wait(track, Wait.DISPATCH + write, time - track.inserted);
  }

  completed(tracks: Map<number, Track>, sector: number, time: number, write: number): number {
    const track = tracks.get(sector);
    if (track === undefined) return NO_TIME;
    tracks.delete(sector);
    return this.#wait(track, Wait.COMPLETION + write, time - track.issued);
  }

  #wait(track: Track, which: number, elapsed: number): number {
    if (Number.isNaN(elapsed)) return UNKNOWN_TIME;
    // a step before its own beginning is not told either
    if (elapsed < 0) return UNKNOWN_TIME;
    const waits = this.#processes?.find(track.pid)?.waits;
    if (waits !== undefined && elapsed > waits[which]!) waits[which] = elapsed;
    return elapsed;
  }

  #findOrAdd(tracks: Map<number, Track>, pid: number, sector: number): Track {
    const known = tracks.get(sector);
    if (known !== undefined) return known;
    if (tracks.size >= MAX_TRACKS) for (const oldest of tracks.keys()) {
      tracks.delete(oldest);
      break;
    }
    this.#names.findOrAdd(pid);
    const track = { pid, allocated: NaN, inserted: NaN, issued: NaN };
    tracks.set(sector, track);
    return track;
  }
}

export type Tracks = Map<number, Track>;
