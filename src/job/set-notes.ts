/** Notes beside images that make one set while something is done to all of them: after a crash they tell what. */
import { createHash, randomUUID } from 'node:crypto';
import { open, readFile, realpath, rename, stat, unlink } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { syncDirectory } from '../base/directory.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import type { SnapshotInfo } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { fileInName } from '../image/image-name.js';

/** A snapshot of a set: the date tells it from an older one of the same name. */
export interface Identity {
  readonly tag: string;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
}

export interface Note extends Identity {
  readonly set: string;
  /** Absolute; the first one's note decides. */
  readonly images: readonly string[];
  /** The snapshot is what the disks were before this one was loaded (`interrupted-load.ts`). */
  readonly loads?: string | undefined;
  /** In the deciding note: the load took effect, and only its snapshots are left to be removed. */
  readonly done?: boolean | undefined;
  /** This image is what it was before the load. */
  readonly restored?: boolean | undefined;
}

export interface FoundNote {
  /** Absolute, as the note names it. */
  readonly image: string;
  readonly note: Note;
  readonly path: string;
  /** It is the set's deciding note, or that one is there as well. */
  readonly decided: boolean;
  readonly done: boolean;
  /** Images of the set that are not there now, as on a file system that is not mounted. */
  readonly missing: readonly string[];
}

const MAX_NOTE_BYTES = 1024 * 1024;

export class SetNotes {
  readonly #note: Note;
  readonly #paths: readonly string[];

  private constructor(note: Note, paths: readonly string[]) {
    this.#note = note;
    this.#paths = paths;
  }

  /** Writes the notes, the deciding one last: without it the others mean nothing. The names are all of files. */
  static async begin(filenames: readonly string[], { tag, dateSeconds, dateNanoseconds }: Identity, loads?: string): Promise<SetNotes> {
    const images = await Promise.all(filenames.map(async (filename) => realpath((await fileInName(filename))!)));
    const note: Note = { set: randomUUID(), tag, dateSeconds, dateNanoseconds, images, loads };
    const notes = new SetNotes(note, await Promise.all(images.map(notePath)));
    for (const file of notes.#paths.toReversed()) await writeDurably(file, JSON.stringify(note));
    return notes;
  }

  /** The set is complete from here on, also after a crash. */
  async commit(): Promise<void> {
    for (const file of this.#paths) await removeDurably(file);
  }

  /** The load took effect, also after a crash; the notes stay until `withdraw`. */
  async loaded(): Promise<void> {
    await writeDurably(this.#paths[0]!, JSON.stringify({ ...this.#note, done: true }));
  }

  /** The images are as they were before `begin`, or it is over. */
  async withdraw(): Promise<void> {
    for (const file of this.#paths.toReversed()) await removeDurably(file);
  }

  get set(): string { return this.#note.set; }
}

/**
 * The names that lead to no file here, like that of an NBD export: there is no place for a note beside them, so a set that
 * they are in does without notes, and what a crash leaves of it is found by nobody.
 */
export async function namesWithoutFile(filenames: readonly string[]): Promise<readonly string[]> {
  const files = await Promise.all(filenames.map(fileInName));
  return filenames.filter((_, index) => files[index] === null);
}

export function isSame({ name, dateSeconds, dateNanoseconds }: SnapshotInfo, note: Identity): boolean {
  return name === note.tag && dateSeconds === note.dateSeconds && dateNanoseconds === note.dateNanoseconds;
}

/** The note beside an image. */
export async function findNote(filename: string): Promise<FoundNote | null> {
  const image = await realpath(await fileInName(filename) ?? filename).catch(() => null);
  if (image === null) return null; // opening it will say why
  const file = await notePath(image);
  const note = await readNote(file);
  if (note === null) return null;
  const deciding = await readNote(await notePath(note.images[0]!));
  const decided = deciding?.set === note.set;
  const there = await Promise.all(note.images.map((one) => stat(one).then(() => true, () => false)));
  return { image, note, path: file, decided, done: decided && deciding.done === true, missing: note.images.filter((_, index) => !there[index]) };
}

/** The deciding one last. */
export async function removeNotes({ images }: Note): Promise<void> {
  for (const image of images.toReversed()) await removeDurably(await notePath(image));
}

/** Beside a file; for a device, whose directory does not survive a reboot, in the user's state directory. */
async function notePath(image: string): Promise<string> {
  const stats = await stat(image).catch(() => null);
  if (stats === null || stats.isFile()) return path.join(path.dirname(image), `.${path.basename(image)}.quiesce-set`);
  const state = process.env['XDG_STATE_HOME'] ?? path.join(os.homedir(), '.local', 'state');
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
    const { set, tag, dateSeconds, dateNanoseconds, images, loads, done, restored } = value as Partial<Note>;
    const valid = typeof set === 'string' && typeof tag === 'string' && Number.isSafeInteger(dateSeconds) &&
      Number.isSafeInteger(dateNanoseconds) && Array.isArray(images) && images.length > 0 && images.every((image) => typeof image === 'string') &&
      (loads === undefined || typeof loads === 'string') && [done, restored].every((flag) => flag === undefined || typeof flag === 'boolean');
    return valid ? { set, tag, dateSeconds: dateSeconds!, dateNanoseconds: dateNanoseconds!, images, loads, done, restored } : null;
  } catch {
    return null;
  }
}

export async function writeDurably(file: string, text: string): Promise<void> {
  const temporary = `${file}.new`;
  try {
    const { ensureDir } = await import('fs-extra/esm');
    await ensureDir(path.dirname(file));
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

export async function removeDurably(file: string): Promise<void> {
  try {
    await unlink(file);
    await syncDirectory(path.dirname(file));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw wrapHostError(error, `could not remove the note '${file}'`);
  }
}

/** The image file below a node, and below whatever filters there are; null where it is none. */
export function fileOf(node: BlockNode): string | null {
  for (let below: BlockNode | undefined = node; below !== undefined; below = below.children.find(({ role }) => role !== 'backing')?.node) {
    if (below.driver.kind === 'protocol') return below.origin?.filename ?? null;
  }
  return null;
}
