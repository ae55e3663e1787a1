import type { BlockNode } from './node.js';

/** Runs `section` while no request is in flight at any of `nodes`. */
export function drained<T>(nodes: readonly BlockNode[], section: () => Promise<T>): Promise<T> {
  const [first, ...rest] = nodes;
  return first === undefined ? section() : first.drained(() => drained(rest, section));
}
