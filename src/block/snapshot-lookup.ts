import type { SnapshotInfo } from './driver.js';

/** By name, else by id. Of several with one name the newest: an interrupted replacement leaves the older one behind. */
export function lookUpSnapshot<T extends SnapshotInfo>(list: readonly T[], tag: string): T | undefined {
  return list.findLast(({ name }) => name === tag) ?? list.find(({ id }) => id === tag);
}
