/** Makes a file longer by bytes that the host has set aside for it, or has written. */
import { BufferPool } from '../base/buffer-pool.js';
import { alignDown, alignUp, MiB } from '../base/bytes.js';
import { errnoOf } from '../base/errors.js';
import { capabilities, preallocate } from '../base/libc.js';
import { syncData, truncate, writeFully } from './file-io.js';

/** `alignment`: what writes to the descriptor must keep to. On failure the file may have any length up to `end`. */
export async function allocateTail(fd: number, mode: 'falloc' | 'full', from: number, end: number, alignment: number): Promise<void> {
  if (mode === 'falloc' && await triesFallocate(fd, from, end)) return;
  await truncate(fd, end);
  await writeZeros(fd, alignUp(from, alignment), alignDown(end, alignment));
  await syncData(fd);
}

/** False where the file system cannot: then only writing helps. */
async function triesFallocate(fd: number, from: number, end: number): Promise<boolean> {
  if (capabilities().whyNot !== null) return false;
  try {
    await preallocate(fd, from, end - from, { extend: true });
    return true;
  } catch (error) {
    if (errnoOf(error) !== 'EOPNOTSUPP' && errnoOf(error) !== 'ENOSYS') throw error;
    return false;
  }
}

async function writeZeros(fd: number, from: number, end: number): Promise<void> {
  const lease = await new BufferPool(MiB).lease(MiB); // aligned, for O_DIRECT
  lease.buffer.fill(0);
  for (let at = from; at < end; at += lease.buffer.byteLength) {
    await writeFully(fd, lease.buffer.subarray(0, Math.min(lease.buffer.byteLength, end - at)), at, null, (error) => error as Error);
  }
}
