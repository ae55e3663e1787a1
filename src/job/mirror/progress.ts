/** How a mirror gets on, whoever runs it: an engine in this process, a daemon, or QEMU. */
import type { JsonObject } from '../../qmp/wire.js';
import type { MirrorPhase } from './controller.js';
import type { Mirror } from './mirror.js';
import type { Convergence } from './pilot.js';
import type { CopyMode } from './state.js';

export interface MirrorProgress {
  /** Bytes that are dealt with, of how many; both grow while guests write. */
  readonly done: number;
  readonly total: number;
  readonly ready: boolean;
  /** In copy mode `auto`. */
  readonly convergence: Convergence | null;
  /** 99 of 100 writes of guests took no longer, lately; null where none was measured. */
  readonly guestP99Ms: number | null;
  /** Bytes that are still to be compared; null where that has not begun. */
  readonly unverified: number | null;
}

export function progressOf(mirror: Mirror): MirrorProgress {
  const { offset, len, ready } = mirror.blockJob.info();
  const { guestP99Ms, unverified } = mirror.figures();
  return { done: offset, total: len, ready, convergence: mirror.convergence, guestP99Ms, unverified };
}

/** Of an answer to `query-block-jobs`. */
export function readProgress(job: JsonObject): MirrorProgress {
  return {
    done: Number(job['offset']), total: Number(job['len']), ready: job['ready'] === true,
    convergence: readConvergence(job['x-quiesce-convergence'] as JsonObject | undefined),
    guestP99Ms: numberOr(job['x-quiesce-guest-p99']), unverified: numberOr(job['x-quiesce-unverified']),
  };
}

function readConvergence(told: JsonObject | undefined): Convergence | null {
  if (told === undefined) return null;
  return {
    phase: told['phase'] as MirrorPhase, copyMode: told['copy-mode'] as CopyMode, dirty: Number(told['dirty']),
    copyRate: Number(told['copy-rate']), dirtyRate: Number(told['dirty-rate']), guestRate: numberOr(told['guest-rate']),
    etaMs: numberOr(told['eta']), deadlineMs: numberOr(told['deadline']), converges: typeof told['converges'] === 'boolean' ? told['converges'] : null,
  };
}

function numberOr(value: unknown): number | null {
  return value === undefined ? null : Number(value);
}
