/**
 * A snapshot over several images is all or none. Before the first image changes, a note beside each image names the
 * whole set; removing the first image's note is the moment the set is complete. A run that finds the notes of an
 * interrupted one names the half-made set and removes it. Loading one is the same with a snapshot of what was before.
 */
import { ImageSet, type SetOptions } from './image-set.js';
import { refuseIncomplete, restoreAll } from './interrupted-load.js';
import { findNote, isSame, namesWithoutFile, removeDurably, removeNotes, type FoundNote, type Identity } from './set-notes.js';

/**
 * Removes what an interrupted run left in any set that these images belong to; `warn` names it. NOT_FOUND where a load was
 * interrupted and not all of its images are there.
 */
export async function removeHalfMadeSets(filenames: readonly string[], options: SetOptions, warn: (message: string) => void): Promise<void> {
  for (const filename of filenames) {
    const found = await findNote(filename);
    if (found === null) continue;
    refuseIncomplete(found);
    if (found.decided) await rollBack(found, options, warn);
    else await removeDurably(found.path);
  }
}

/** What `removeHalfMadeSets` would remove; looks only. Refuses what it would refuse. */
export async function halfMadeSnapshots(filenames: readonly string[]): Promise<readonly Identity[]> {
  const found = await Promise.all(filenames.map(findNote));
  for (const one of found) if (one !== null) refuseIncomplete(one);
  return found.flatMap((one) => one?.decided === true ? [one.note] : []);
}

/** Before the first image of a set changes: tells of what a crash could leave half done. True where nothing could. */
export async function isCovered(filenames: readonly string[], warn: (message: string) => void): Promise<boolean> {
  const uncovered = filenames.length === 1 ? [] : await namesWithoutFile(filenames);
  if (uncovered.length > 0) warn(`${quoted(uncovered)}: no file here, so if this run is killed, some images may be changed and others not, and nothing makes up for it`);
  return uncovered.length === 0;
}

async function rollBack({ note, done, missing }: FoundNote, options: SetOptions, warn: (message: string) => void): Promise<void> {
  const present = note.images.filter((image) => !missing.includes(image));
  // Opening takes the image locks: a run that is still at work keeps them, and this one is refused
  const set = await ImageSet.open(present, { ...options, cache: 'writeback', readOnly: false, forceShare: false });
  const cleaned: string[] = [];
  try {
    if (note.loads !== undefined && !done && !await restoreAll(set.images.map(({ filename, node, snapshots }) => ({ filename, node, table: snapshots })), note, warn)) return;
    for (const { filename, node, snapshots } of set.images) {
      const half = snapshots.list().find((snapshot) => isSame(snapshot, note));
      if (half === undefined) continue;
      await node.drained(() => snapshots.delete(half.id));
      cleaned.push(filename);
    }
  } finally {
    await set.close();
  }
  await removeNotes(note);
  if (note.loads !== undefined) return;
  const where = cleaned.length === 0 ? 'no image had it yet' : `removed from ${quoted(cleaned)}`;
  const elsewhere = missing.length === 0 ? '' : `; not there, and may keep it: ${quoted(missing)}`;
  warn(`snapshot '${note.tag}' of an interrupted run was half made: ${where}${elsewhere}`);
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ');
}
