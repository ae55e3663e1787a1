/** Where journals lie: a directory of small files. An interface, so that a simulator can cut the power at every step. */
import { writeSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { syncDirectory } from '../../base/directory.js';
import { errnoOf, wrapHostError } from '../../base/errors.js';

/** 512 bytes, which a disk writes as a whole or not at all. */
export interface JournalSector {
  readonly index: number;
  readonly bytes: Uint8Array;
}

export interface JournalFiles {
  list(): Promise<string[]>;
  /** Null where there is none, or more than `limit` bytes. */
  read(name: string, limit: number): Promise<Uint8Array | null>;
  /** The old content or the new one, whatever happens; the new one is durable when it resolves. */
  replace(name: string, content: Uint8Array): Promise<void>;
  /** Durable when it resolves; not being there is fine. */
  remove(name: string): Promise<void>;
  /** For writes in place, of a file that is there. */
  openSectors(name: string): Promise<SectorFile>;
}

export interface SectorFile {
  /** All of them are durable when it resolves; until then, each is old or new. */
  write(sectors: readonly JournalSector[]): Promise<void>;
  /** Before it returns, processes that start later on this machine will see it; a power cut may take it back. */
  note(sector: JournalSector): void;
  close(): Promise<void>;
}

export const SECTOR_BYTES = 512;

export class JournalDirectory implements JournalFiles {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async open(directory: string): Promise<JournalDirectory> {
    await mkdir(directory, { recursive: true, mode: 0o700 }).catch((error: unknown) => { throw wrapHostError(error, `could not make '${directory}'`); });
    return new JournalDirectory(directory);
  }

  async list(): Promise<string[]> {
    return (await readdir(this.#directory)).toSorted();
  }

  async read(name: string, limit: number): Promise<Uint8Array | null> {
    const file = this.#path(name);
    try {
      return (await stat(file)).size > limit ? null : await readFile(file);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return null;
      throw wrapHostError(error, `could not read '${file}'`);
    }
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    const file = this.#path(name);
    const temporary = `${file}.new`;
    try {
      const handle = await open(temporary, 'w', 0o600);
      try {
        await handle.writeFile(content);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, file);
      await syncDirectory(this.#directory);
    } catch (error) {
      throw wrapHostError(error, `could not write '${file}'`);
    }
  }

  async remove(name: string): Promise<void> {
    const file = this.#path(name);
    try {
      await unlink(file);
      await syncDirectory(this.#directory);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw wrapHostError(error, `could not remove '${file}'`);
    }
  }

  async openSectors(name: string): Promise<SectorFile> {
    const file = this.#path(name);
    return new HostSectors(file, await open(file, 'r+').catch((error: unknown) => { throw wrapHostError(error, `could not open '${file}'`); }));
  }

  #path(name: string): string {
    return path.join(this.#directory, name);
  }
}

class HostSectors implements SectorFile {
  readonly #name: string;
  readonly #file: FileHandle;

  constructor(name: string, file: FileHandle) {
    this.#name = name;
    this.#file = file;
  }

  async write(sectors: readonly JournalSector[]): Promise<void> {
    try {
      for (const { index, bytes } of sectors) await this.#file.write(bytes, 0, bytes.byteLength, index * SECTOR_BYTES);
      await this.#file.datasync();
    } catch (error) {
      throw wrapHostError(error, `could not write '${this.#name}'`);
    }
  }

  note({ index, bytes }: JournalSector): void {
    writeSync(this.#file.fd, bytes, 0, bytes.byteLength, index * SECTOR_BYTES);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
