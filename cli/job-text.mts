/** How a block job is told to people. */
import { formatSize } from '../src/index.js';
import type { Reply } from './daemon-client.mjs';

/** What a mirror in copy mode `auto` tells of itself. */
export function convergenceOf(job: Reply): Reply | null {
  return (job['x-quiesce-convergence'] as Reply | undefined) ?? null;
}

/** `converge, 12 MiB dirty, copies 5 MiB/s, guests dirty 1 MiB/s, ready in 12 s`. */
export function convergenceText(now: Reply): string {
  const size = (name: string): string => formatSize(Math.round(Number(now[name])));
  const eta = now['eta'] === undefined ? [] : [`ready in ${seconds(Number(now['eta']))}`];
  const never = now['converges'] === false ? ['does not converge'] : eta;
  return [String(now['phase']), `${size('dirty')} dirty`, `copies ${size('copy-rate')}/s`, `guests dirty ${size('dirty-rate')}/s`, ...never].join(', ');
}

export function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}

export function percent(job: Reply): string {
  const [offset, len] = [Number(job['offset']), Number(job['len'])];
  return len === 0 ? '-' : `${Math.floor(offset / len * 100)}%`;
}
