/** Space on the host for clusters that are mapped before anybody writes them: whatever was there reads as zeros afterwards. */
import { MiB } from '../../base/bytes.js';
import type { BlockChild } from '../../block/child.js';
import type { Preallocation } from '../../block/driver.js';
import { RequestFlag } from '../../block/request.js';

export async function prepareSpace(file: BlockChild, offset: number, bytes: number, mode: Preallocation): Promise<void> {
  if (mode === 'full') return writeZeros(file, offset, bytes);
  if (mode === 'falloc') return file.writeZeroes(offset, bytes);
  // beyond its end a file reads as zeros by itself
  const inside = file.growable ? Math.min(bytes, file.length() - offset) : bytes;
  if (inside > 0) await file.writeZeroes(offset, inside, RequestFlag.MAY_UNMAP);
}

async function writeZeros(file: BlockChild, offset: number, bytes: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(bytes, MiB));
  for (let done = 0; done < bytes; done += zeros.byteLength) {
    await file.write(offset + done, zeros.subarray(0, Math.min(zeros.byteLength, bytes - done)));
  }
}
