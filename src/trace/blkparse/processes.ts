/** Names and counts of processes, as blkparse keeps them: the first name of a pid stays, and -h counts all of one name as one. */
import { newStats, type IoStats } from './stats.js';
import { compareVersions } from './version-compare.js';

/** Of a name, with the zero that ends it. */
const COMM_BYTES = 16;
const UNKNOWN = Buffer.from('unknown');

interface Process {
  readonly pid: number;
  readonly comm: Uint8Array;
}

export interface ProcessStats {
  readonly process: Process;
  readonly stats: IoStats;
  /** Longest, ns: allocation, dispatch, completion, each of reads and of writes. */
  readonly waits: Float64Array;
  moreThanOne: boolean;
}

export class ProcessNames {
  /** Counts additions: what is kept of names elsewhere is stale when it changes. */
  version = 0;
  readonly #names = new Map<number, Process>();

  find(pid: number): Process | undefined {
    return this.#names.get(pid);
  }

  add(pid: number, payload: Uint8Array): Process {
    const known = this.#names.get(pid);
    if (known !== undefined) return known;
    const end = payload.indexOf(0);
    const process = { pid, comm: Uint8Array.from(payload.subarray(0, Math.min(COMM_BYTES - 1, end < 0 ? payload.length : end))) };
    this.#names.set(pid, process);
    this.version++;
    return process;
  }

  /** As blkparse does where it must have a name. */
  findOrAdd(pid: number): Process {
    return this.#names.get(pid) ?? this.add(pid, UNKNOWN);
  }
}

export class ProcessTable {
  readonly #names: ProcessNames;
  readonly #byName: boolean;
  /** By pid or name; of several of one name the one that came last. */
  readonly #stats = new Map<number | string, ProcessStats>();
  readonly #all: ProcessStats[] = [];

  constructor(names: ProcessNames, byName: boolean) {
    this.#names = names;
    this.#byName = byName;
  }

  find(pid: number): ProcessStats | undefined {
    if (!this.#byName) return this.#stats.get(pid);
    const process = this.#names.find(pid);
    if (process === undefined) return undefined;
    const found = this.#stats.get(keyOf(process.comm));
    if (found !== undefined && found.process.pid !== pid) found.moreThanOne = true;
    return found;
  }

  findOrAdd(pid: number): ProcessStats {
    const found = this.find(pid);
    if (found !== undefined) return found;
    const process = this.#names.findOrAdd(pid);
    const added = { process, stats: newStats(), waits: new Float64Array(6), moreThanOne: false };
    // each that has no name when it is first counted is one of its own for blkparse
    this.#stats.set(this.#byName ? keyOf(process.comm) : pid, added);
    this.#all.push(added);
    return added;
  }

  /** By name, then pid as a signed number; of equal ones the last added comes first. */
  sorted(): ProcessStats[] {
    return this.#all.toReversed().sort((a, b) => compareVersions(a.process.comm, b.process.comm) || (a.process.pid | 0) - (b.process.pid | 0));
  }
}

function keyOf(comm: Uint8Array): string {
  return Buffer.from(comm).toString('latin1');
}
