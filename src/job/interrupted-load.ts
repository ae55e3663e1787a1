/**
 * What a crash left of a load of one snapshot on several images is taken back: each becomes what it was before, which its
 * undo snapshot holds. Where one of them was written since, somebody has used the images as they are, and nothing is changed.
 */
import { BlockError } from '../base/errors.js';
import type { SnapshotInfo, SnapshotTable } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { lookUpSnapshot } from '../block/snapshot-lookup.js';
import { ImageSet } from './image-set.js';
import { fileOf, findNote, isSame, removeDurably, removeNotes, writeDurably, type FoundNote, type Note } from './set-notes.js';

interface Restorable {
  readonly filename: string;
  readonly node: BlockNode;
  readonly table: SnapshotTable;
}

/** `before`: as it was before the load. `loaded`: as the load left it. */
type State = 'before' | 'loaded' | 'changed';

/**
 * Only with all images at hand can they become the same again: what is done to one could not be done to the others, and
 * without the deciding one nobody knows how far it went.
 */
export function refuseIncomplete({ note, image, path, decided, missing }: FoundNote): void {
  const lacking = decided ? missing : missing.filter((one) => one === note.images[0]);
  if (note.loads === undefined || lacking.length === 0) return;
  const more = lacking.length === 1 ? '' : ` and ${lacking.length - 1} more`;
  throw new BlockError('NOT_FOUND', `loading snapshot '${note.loads}' on several images was interrupted, and '${lacking[0]}'${more} of them cannot be found: ` +
    `bring it back, or remove '${path}' to use '${image}' as it is now, without the others (its snapshot '${note.tag}', if it has that, is what it was before)`);
}

/** Of images that are open for writing, all of the set. False where nothing was changed, since somebody else has written; the notes are gone then. */
export async function restoreAll(images: readonly Restorable[], note: Note, warn: (message: string) => void): Promise<boolean> {
  const states = await Promise.all(images.map((image) => stateOf(image, note)));
  if (states.includes('changed')) {
    await giveUp(note, warn);
    return false;
  }
  for (const [index, image] of images.entries()) if (states[index] === 'loaded') await takeBack(image, note);
  warn(`loading snapshot '${note.loads}' was interrupted: the images are what they were before it`);
  return true;
}

/**
 * For an image that was just opened for writing, before it has users: as long as its set is not whole again, it must not
 * be used as the crash left it. Returns what happened, null where nothing did. NOT_FOUND where others of the set, which
 * have to become the same, are not there.
 */
export async function restoreOpened(node: BlockNode): Promise<string | null> {
  const table = node.driver.snapshots;
  const filename = table === undefined || node.readOnly ? null : fileOf(node);
  const found = filename === null ? null : await findNote(filename).catch(() => null);
  if (found === null) return null;
  const { note } = found;
  // this one is as it is to be, and its note stays for those that are not there
  if (note.loads !== undefined && found.missing.length > 0 && (found.done || note.restored === true)) return null;
  refuseIncomplete(found);
  // without the deciding note nothing had begun, or all is over
  if (!found.decided) await removeDurably(found.path);
  if (!found.decided || note.loads === undefined) return null;
  const image: Restorable = { filename: found.image, node, table: table! };
  let told: string | null = null;
  if (!found.done && note.restored !== true) {
    if ((await stateOf(image, note)) === 'changed' || await othersChanged(note, image.filename)) {
      await giveUp(note, (message) => { told = message; });
      return told;
    }
    if (await stateOf(image, note) === 'loaded') await takeBack(image, note);
    told = `loading snapshot '${note.loads}' was interrupted: '${image.filename}' is what it was before it`;
    await writeDurably(found.path, JSON.stringify({ ...note, restored: true }));
  }
  await forgetUndo(image, found);
  return told;
}

/** The undo snapshot goes, and with the last image of the set the notes do. */
async function forgetUndo({ filename, node, table }: Restorable, { note, path, done }: FoundNote): Promise<void> {
  const undo = undoOf(table, note);
  if (undo !== undefined) await node.drained(() => table.delete(undo.id));
  if (done) await writeDurably(path, JSON.stringify({ ...note, done: note.images[0] === filename, restored: true }));
  const notes = await Promise.all(note.images.map(findNote));
  if (notes.every((other) => other === null || other.note.set !== note.set || other.note.restored === true)) await removeNotes(note);
}

/** Those that are not open here are looked at as they are, beside whoever uses them. */
async function othersChanged(note: Note, filename: string): Promise<boolean> {
  const left: string[] = [];
  for (const image of note.images) {
    const other = image === filename ? null : await findNote(image);
    if (other !== null && other.note.restored !== true) left.push(image);
  }
  if (left.length === 0) return false;
  const set = await ImageSet.open(left, { cache: 'writeback', readOnly: true, forceShare: true, noBacking: true });
  try {
    const states = await Promise.all(set.images.map(({ filename: name, node, snapshots }) => stateOf({ filename: name, node, table: snapshots }, note)));
    return states.includes('changed');
  } finally {
    await set.close();
  }
}

/** One without an undo snapshot was not reached yet, or is whole again already. */
async function stateOf({ filename, node, table }: Restorable, note: Note): Promise<State> {
  const undo = undoOf(table, note);
  if (undo === undefined || (await findNote(filename))?.note.restored === true || await node.drained(() => table.isActive(undo.id))) return 'before';
  const loaded = lookUpSnapshot(table.list(), note.loads!);
  return loaded !== undefined && await node.drained(() => table.isActive(loaded.id)) ? 'loaded' : 'changed';
}

function takeBack({ node, table }: Restorable, note: Note): Promise<void> {
  return node.drained(() => table.apply(undoOf(table, note)!.id));
}

function undoOf(table: SnapshotTable, note: Note): SnapshotInfo | undefined {
  return table.list().find((snapshot) => isSame(snapshot, note));
}

async function giveUp(note: Note, warn: (message: string) => void): Promise<void> {
  await removeNotes(note);
  warn(`loading snapshot '${note.loads}' was interrupted, and images were written since: they stay as they are, ` +
    `which may be of different moments. What they were before it is in their snapshots '${note.tag}'`);
}
