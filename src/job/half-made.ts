/**
 * A snapshot over several images is all or none. Before the first image changes, a note beside each image names the
 * whole set; removing the first image's note is the moment the set is complete. A run that finds the notes of an
 * interrupted one names the half-made set and removes it.
 */
import { createHash, randomUUID } from 'node:crypto';
import { open, readFile, realpath, rename, stat, unlink } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { syncDirectory } from '../base/directory.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import type { SnapshotInfo } from '../block/driver.js';
import { ImageSet, type SetOptions } from './image-set.js';

/** A snapshot of a set: the date tells it from an older one of the same name. */
interface Identity {
  readonly tag: string;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
}

interface Note extends Identity {
  readonly set: string;
  /** Absolute; the first one's note decides. */
  readonly images: readonly string[];
}

const MAX_NOTE_BYTES = 1024 * 1024;

export class SetNotes {
  readonly #note: Note;
  readonly #paths: readonly string[];

  private constructor(note: Note, paths: readonly string[]) {
    this.#note = note;
    this.#paths = paths;
  }

  /** Writes the notes, the deciding one last: without it the others mean nothing. */
  static async begin(filenames: readonly string[], snapshot: Identity): Promise<SetNotes> {
    const images = await Promise.all(filenames.map((filename) => realpath(filename)));
    const note: Note = { set: randomUUID(), ...snapshot, images };
    const notes = new SetNotes(note, await Promise.all(images.map(notePath)));
    for (const file of notes.#paths.toReversed()) await writeDurably(file, JSON.stringify(note));
    return notes;
  }

  /** The set is complete from here on, also after a crash. */
  async commit(): Promise<void> {
    for (const file of this.#paths) await removeDurably(file);
  }

  /** The images are as they were before `begin`. */
  async withdraw(): Promise<void> {
    for (const file of this.#paths.toReversed()) await removeDurably(file);
  }

  get set(): string { return this.#note.set; }
}

/** Removes what an interrupted run left in any set that these images belong to; `warn` names it. */
export async function removeHalfMadeSets(filenames: readonly string[], options: SetOptions, warn: (message: string) => void): Promise<void> {
  for (const filename of filenames) {
    const found = await findNote(filename);
    if (found === null) continue;
    if (found.decided) await rollBack(found.note, options, warn);
    else await removeDurably(found.path);
  }
}

/** What `removeHalfMadeSets` would remove; looks only. */
export async function halfMadeSnapshots(filenames: readonly string[]): Promise<readonly Identity[]> {
  const found = await Promise.all(filenames.map(findNote));
  return found.flatMap((one) => one?.decided === true ? [one.note] : []);
}

export function isSame({ name, dateSeconds, dateNanoseconds }: SnapshotInfo, note: Identity): boolean {
  return name === note.tag && dateSeconds === note.dateSeconds && dateNanoseconds === note.dateNanoseconds;
}

/** The note beside an image; `decided` where it is the set's deciding note, or that one is there as well. */
async function findNote(filename: string): Promise<{ readonly note: Note; readonly path: string; readonly decided: boolean } | null> {
  const image = await realpath(filename).catch(() => null);
  if (image === null) return null; // opening it will say why
  const file = await notePath(image);
  const note = await readNote(file);
  if (note === null) return null;
  const deciding = await readNote(await notePath(note.images[0]!));
  return { note, path: file, decided: deciding?.set === note.set };
}

async function rollBack(note: Note, options: SetOptions, warn: (message: string) => void): Promise<void> {
  const present: string[] = [];
  for (const image of note.images) {
    if (await stat(image).then(() => true, () => false)) present.push(image);
  }
  // Opening takes the image locks: a run that is still at work keeps them, and this one is refused
  const set = await ImageSet.open(present, { ...options, cache: 'writeback', readOnly: false, forceShare: false });
  const cleaned: string[] = [];
  try {
    for (const { filename, node, snapshots } of set.images) {
      const half = snapshots.list().find((snapshot) => isSame(snapshot, note));
      if (half === undefined) continue;
      await node.drained(() => snapshots.delete(half.id));
      cleaned.push(filename);
    }
  } finally {
    await set.close();
  }
  for (const image of note.images.toReversed()) await removeDurably(await notePath(image));
  const where = cleaned.length === 0 ? 'no image had it yet' : `removed from ${cleaned.map((name) => `'${name}'`).join(', ')}`;
  warn(`snapshot '${note.tag}' of an interrupted run was half made: ${where}`);
}

/** Beside a file; for a device, whose directory does not survive a reboot, in the user's state directory. */
async function notePath(image: string): Promise<string> {
  const stats = await stat(image).catch(() => null);
  if (stats === null || stats.isFile()) return path.join(path.dirname(image), `.${path.basename(image)}.quiesce-set`);
  const state = process.env['XDG_STATE_HOME'] ?? path.join(os.homedir(), '.local', 'state');
  const { ensureDir } = await import('fs-extra/esm');
  await ensureDir(path.join(state, 'quiesce'));
  return path.join(state, 'quiesce', `set-${createHash('sha256').update(image).digest('hex').slice(0, 32)}`);
}

async function readNote(file: string): Promise<Note | null> {
  let text: string;
  try {
    if ((await stat(file)).size > MAX_NOTE_BYTES) return null;
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw wrapHostError(error, `could not read '${file}'`);
  }
  const note = parseNote(text);
  if (note === null) throw new BlockError('CORRUPT', `'${file}' is not a note of this engine; it is in the way of a snapshot set, remove it by hand`);
  return note;
}

function parseNote(text: string): Note | null {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return null;
    const { set, tag, dateSeconds, dateNanoseconds, images } = value as Partial<Note>;
    const valid = typeof set === 'string' && typeof tag === 'string' && Number.isSafeInteger(dateSeconds) &&
      Number.isSafeInteger(dateNanoseconds) && Array.isArray(images) && images.length > 0 && images.every((image) => typeof image === 'string');
    return valid ? { set, tag, dateSeconds: dateSeconds!, dateNanoseconds: dateNanoseconds!, images } : null;
  } catch {
    return null;
  }
}

async function writeDurably(file: string, text: string): Promise<void> {
  const temporary = `${file}.new`;
  try {
    const handle = await open(temporary, 'w', 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncDirectory(path.dirname(file));
  } catch (error) {
    throw wrapHostError(error, `could not write the note '${file}'`);
  }
}

async function removeDurably(file: string): Promise<void> {
  try {
    await unlink(file);
    await syncDirectory(path.dirname(file));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw wrapHostError(error, `could not remove the note '${file}'`);
  }
}
