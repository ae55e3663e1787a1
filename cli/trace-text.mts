/** What commands about traces share: files they write, and what they say about reading. */
import { open, type FileHandle } from 'node:fs/promises';
import { wrapHostError, type ReadFindings } from '../src/index.js';

/** One line each for damage that was passed over. */
export function warnOfFindings({ skippedBytes, skips }: ReadFindings, warn: (message: string) => void): void {
  if (skips > 0) warn(`${skippedBytes} bytes of the trace are no records (${skips} ${skips === 1 ? 'place' : 'places'}): they are left out`);
}

export async function openOutput(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'w');
  } catch (error) {
    throw wrapHostError(error, `cannot write '${path}'`);
  }
}

export function writeTo(file: FileHandle, path: string): (bytes: Uint8Array) => Promise<void> {
  return async (bytes) => {
    try {
      for (let done = 0; done < bytes.length;) done += (await file.write(bytes, done)).bytesWritten;
    } catch (error) {
      throw wrapHostError(error, `cannot write '${path}'`);
    }
  };
}
