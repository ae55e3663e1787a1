/** What blkparse keeps per device and per CPU of it. A device is what its summary has a section for: a name of files, or a number in a stream. */
import { newStats, type IoStats } from './stats.js';
import type { Tracks } from './track.js';

/** Sequence numbers that never came, from and to. */
interface Skip {
  start: number;
  end: number;
}

export class CpuState {
  readonly cpu: number;
  readonly stats: IoStats = newStats();
  /** Records seen, printed or not. */
  records = 0;
  /** -1: none yet. */
  lastSequence = -1;
  readonly skips: Skip[] = [];

  constructor(cpu: number) {
    this.cpu = cpu;
  }

  /** A sequence number that comes late fills a part of a skip. */
  fillSkip(sequence: number): boolean {
    for (let at = this.skips.length - 1; at >= 0; at--) {
      const skip = this.skips[at]!;
      if (sequence < skip.start || sequence > skip.end) continue;
      if (skip.start === sequence && skip.end === sequence) this.skips.splice(at, 1);
      else if (skip.start === sequence) skip.start++;
      else if (skip.end === sequence) skip.end--;
      else {
        skip.end = sequence - 1;
        // blkparse forgets where the rest ended: what it adds here counts as -1
        this.addSkip(sequence + 1, sequence - 1);
      }
      return true;
    }
    return false;
  }

  addSkip(start: number, end: number): void {
    for (let at = this.skips.length - 1; at >= 0; at--) {
      const skip = this.skips[at]!;
      if (end === skip.start - 1) {
        skip.start = start;
        return;
      }
      if (start === skip.end + 1) {
        skip.end = end;
        return;
      }
    }
    this.skips.push({ start, end });
  }
}

export class DeviceState {
  /** The kernel's number; 0 until a stream has told it. */
  device: number;
  /** Its files' name, null for a device of a stream. */
  readonly name: string | null;
  readonly cpus = new Map<number, CpuState>();
  readonly tracks: Tracks = new Map();
  events = 0;
  firstTime = 0;
  lastTime = 0;
  /** Of reads, of writes. */
  readonly depth = [0, 0];
  readonly maxDepth: [number, number] = [0, 0];
  #lastCpu: CpuState | null = null;

  constructor(device: number, name: string | null) {
    this.device = device;
    this.name = name;
  }

  cpu(cpu: number): CpuState {
    if (this.#lastCpu?.cpu === cpu) return this.#lastCpu;
    let found = this.cpus.get(cpu);
    if (found === undefined) this.cpus.set(cpu, found = new CpuState(cpu));
    return this.#lastCpu = found;
  }

  begin(write: number): void {
    const depth = this.depth[write]! + 1;
    this.depth[write] = depth;
    if (depth > this.maxDepth[write]!) this.maxDepth[write] = depth;
  }

  end(write: number): void {
    if (this.depth[write]! > 0) this.depth[write]!--;
  }
}
