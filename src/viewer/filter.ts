import type { IoIndex } from './io-index.js';
import { OPS, type Op } from './operations.js';

/** Which requests count. What is not given lets all through. */
export interface Filter {
  readonly ops?: readonly Op[] | undefined;
  readonly pids?: readonly number[] | undefined;
  /** Device numbers: the layers of our own recordings. */
  readonly devices?: readonly number[] | undefined;
}

/** 1 for each group of the index whose requests count. */
export function compileFilter({ groups, devices, processes }: Pick<IoIndex, 'groups' | 'devices' | 'processes'>, { ops, pids, devices: layers }: Filter): Uint8Array {
  const allows = <T>(chosen: readonly T[] | undefined, all: readonly T[]): ((place: number) => boolean) => {
    if (chosen === undefined) return () => true;
    const set = new Set(chosen);
    return (place) => set.has(all[place]!);
  };
  const op = allows(ops, OPS);
  const device = allows(layers, devices.map((traced) => traced.device));
  const process = allows(pids, processes.map(({ pid }) => pid));
  return Uint8Array.from(groups, (group) => (op(group.op) && device(group.device) && process(group.process) ? 1 : 0));
}
