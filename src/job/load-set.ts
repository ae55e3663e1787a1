/** Going back to one snapshot on several nodes: on all of them or on none, also after a crash. */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { CreateSnapshot } from '../block/driver.js';
import { lookUpSnapshot } from '../block/snapshot-lookup.js';
import { beginNotes, type SnapshotTarget } from './snapshot-set.js';

/**
 * On drained nodes, which all have a snapshot of that name, or id. What the disks were before is kept in a snapshot of each until
 * all have gone back; notes beside the images tell of it, and `interrupted-load.ts` what to do after a crash.
 */
export async function loadSet(targets: readonly SnapshotTarget[], tag: string, clock: Clock): Promise<void> {
  const apply = (target: SnapshotTarget): Promise<void> =>
    inWords(`Could not load snapshot '${tag}' on '${calledBy(target)}': `, () => target.table.apply(lookUpSnapshot(target.table.list(), tag)!.id));
  if (targets.length === 1) return apply(targets[0]!);
  const undo: CreateSnapshot = { name: `quiesce-undo-${randomUUID()}`, vmStateSize: 0, ...moment(clock) };
  const notes = await beginNotes(targets, undo, tag);
  const before: { readonly target: SnapshotTarget; readonly id: string }[] = [];
  let touched = 0;
  try {
    for (const target of targets) before.push({ target, id: (await target.table.create(undo)).id });
    for (const target of targets) {
      touched++;
      await apply(target);
    }
    await notes?.loaded();
  } catch (error) {
    try {
      for (const { target, id } of before.slice(0, touched)) if (!await target.table.isActive(id)) await target.table.apply(id);
      for (const { target, id } of before) await target.table.delete(id);
      await notes?.withdraw();
    } catch (undoing) {
      throw new BlockError('IO', `${messageOf(error)}; what was reverted before it could not be undone: ${messageOf(undoing)}`, { cause: error });
    }
    throw error;
  }
  for (const { target, id } of before) {
    await inWords(`snapshot '${tag}' was loaded; a snapshot made for going back stays on '${calledBy(target)}': `, () => target.table.delete(id));
  }
  await notes?.withdraw();
}

function calledBy({ node, filename }: SnapshotTarget): string {
  return filename === undefined ? node.nodeName : node.name;
}

/** The wall clock, also in the place of a machine's clock, as where QEMU makes a snapshot without a machine. */
export function moment(clock: Clock): Pick<CreateSnapshot, 'dateSeconds' | 'dateNanoseconds' | 'vmClockNs'> {
  const now = clock.wallMs();
  const dateSeconds = Math.floor(now / 1000);
  const dateNanoseconds = Math.floor((now - dateSeconds * 1000) * 1e6);
  return { dateSeconds, dateNanoseconds, vmClockNs: BigInt(dateSeconds) * 1_000_000_000n + BigInt(dateNanoseconds) };
}

export async function inWords(words: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new BlockError(error instanceof BlockError ? error.code : 'IO', `${words}${messageOf(error)}`, { cause: error });
  }
}
