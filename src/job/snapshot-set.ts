/** One internal snapshot over several nodes: of one moment, and on all of them or on none, also after a crash. */
import type { Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { CreateSnapshot, SnapshotInfo, SnapshotTable } from '../block/driver.js';
import { drained } from '../block/drain.js';
import type { BlockNode } from '../block/node.js';
import { halfMadeSnapshots } from './half-made.js';
import { fileOf, namesWithoutFile, SetNotes } from './set-notes.js';

export interface SnapshotTarget {
  readonly node: BlockNode;
  readonly table: SnapshotTable;
  /** Of an image that was opened by its name. */
  readonly filename?: string | undefined;
}

interface CreatedSet {
  /** In the order of the targets. */
  readonly snapshots: readonly SnapshotInfo[];
  /** How long new requests had to wait: the longest of the drained sections. */
  readonly pauseNs: number;
}

/** The first target takes the VM state. With `replace`, older snapshots of the name go once the new ones are durable. */
export async function createSnapshotSet(targets: readonly SnapshotTarget[], snapshot: CreateSnapshot, clock: Clock): Promise<CreatedSet> {
  const { name } = snapshot;
  const older = targets.map(({ table }) => table.list().filter((one) => one.name === name));
  for (const { node } of targets) await node.flush(); // what can be written before the pause need not be written in it
  const pauses = new Pauses(clock);
  const notes = await beginNotes(targets, snapshot);
  const created: SnapshotInfo[] = [];
  try {
    await pauses.drained(targets, () => createAll(targets, snapshot, created));
    await notes?.commit();
  } catch (error) {
    await undo(targets, created, notes, error);
    throw error;
  }
  try {
    for (const [index, target] of targets.entries()) {
      for (const { id } of older[index]!) await pauses.drained([target], () => target.table.delete(id));
    }
  } catch (error) {
    // The new one is durable: what fails now must not look as if it were not there
    throw new BlockError('IO', `snapshot '${name}' was made and is durable (id ${created[0]!.id}), but the older one stayed: ${messageOf(error)}`, { cause: error });
  }
  return { snapshots: created, pauseNs: pauses.longestNs };
}

/** The one with the VM state comes last: without it the others are worth nothing. */
async function createAll(targets: readonly SnapshotTarget[], snapshot: CreateSnapshot, created: SnapshotInfo[]): Promise<void> {
  for (const { table } of targets.slice(1).reverse()) created.unshift(await table.create({ ...snapshot, vmStateSize: 0 }));
  created.unshift(await targets[0]!.table.create(snapshot));
}

/** Notes beside the images tell after a crash what belongs together; images that are no files here do without. */
export async function beginNotes(
  targets: readonly SnapshotTarget[], { name, dateSeconds, dateNanoseconds }: CreateSnapshot, loads?: string,
): Promise<SetNotes | null> {
  if (targets.length === 1) return null;
  const files = targets.map(({ node, filename }) => filename ?? fileOf(node)).filter((file) => file !== null);
  if (files.length < targets.length || (await namesWithoutFile(files)).length > 0) return null;
  const [half] = await halfMadeSnapshots(files);
  if (half !== undefined) {
    throw new BlockError('BUSY', `an interrupted run left the snapshot '${half.tag}' half made: the next snapshot command on its images removes it, once no daemon has them open`);
  }
  return SetNotes.begin(files, { tag: name, dateSeconds, dateNanoseconds }, loads);
}

/** The notes go only when every image is known to be without the snapshot: a write that failed may still have reached the disk. */
async function undo(targets: readonly SnapshotTarget[], created: readonly SnapshotInfo[], notes: SetNotes | null, cause: unknown): Promise<void> {
  const done = targets.slice(targets.length - created.length);
  try {
    for (const [index, { node, table }] of done.entries()) await node.drained(() => table.delete(created[index]!.id));
    if (notes === null) return;
    for (const { node } of targets) await node.flush();
    await notes.withdraw();
  } catch (error) {
    throw new BlockError('IO', `${messageOf(cause)}; some images may have the snapshot, since it could not be undone: ${messageOf(error)}`, { cause });
  }
}

class Pauses {
  longestNs = 0;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async drained(targets: readonly SnapshotTarget[], section: () => Promise<void>): Promise<void> {
    const begin = this.#clock.monotonicMs();
    try {
      await drained(targets.map(({ node }) => node), section);
    } finally {
      this.longestNs = Math.max(this.longestNs, Math.round((this.#clock.monotonicMs() - begin) * 1e6));
    }
  }
}
