/** Compares what two nodes hold, to the first range that differs. Nobody may write to either meanwhile. */
import { BufferPool } from '../../base/buffer-pool.js';
import { MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { BlockNode } from '../../block/node.js';
import { chainStatus } from '../../block/status.js';

const CHUNK = MiB;
const WORKERS = 4;
const SECTOR = 512;

interface Difference {
  readonly offset: number;
  readonly bytes: number;
}

/** Refuses with `CORRUPT` where `other` does not begin with all that `one` holds. */
export async function compareNodes(one: BlockNode, other: BlockNode, signal?: AbortSignal): Promise<void> {
  const difference = await firstDifference(one, other, signal);
  if (difference === null) return;
  const { offset, bytes } = difference;
  throw new BlockError('CORRUPT', `Source and target differ in ${bytes} bytes at ${offset}`, { offset, bytes });
}

/** The first run of sectors that differ within one chunk; null where all that `one` holds is equal. */
async function firstDifference(one: BlockNode, other: BlockNode, signal: AbortSignal | undefined): Promise<Difference | null> {
  const bytes = one.length();
  const pool = new BufferPool(WORKERS * 2 * CHUNK);
  const found: Difference[] = [];
  let position = 0;
  const work = async (): Promise<void> => {
    const lease = await pool.lease(2 * CHUNK);
    try {
      while (position < bytes && found.length === 0) {
        signal?.throwIfAborted();
        const offset = position;
        const length = Math.min(CHUNK, bytes - offset);
        position += length;
        if (!await bothZero(one, other, offset, length)) {
          const mine = lease.buffer.subarray(0, length);
          const theirs = lease.buffer.subarray(CHUNK, CHUNK + length);
          await Promise.all([one.read(offset, mine, 'background'), other.read(offset, theirs, 'background')]);
          found.push(...differencesIn(mine, theirs, offset));
        }
      }
    } finally {
      lease.release();
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  return found.toSorted((a, b) => a.offset - b.offset)[0] ?? null;
}

async function bothZero(one: BlockNode, other: BlockNode, offset: number, bytes: number): Promise<boolean> {
  for (const node of [one, other]) {
    const status = await chainStatus(node, offset, bytes);
    if (status.kind === 'data' || status.bytes < bytes) return false;
  }
  return true;
}

function differencesIn(mine: Uint8Array, theirs: Uint8Array, at: number): Difference[] {
  if (Buffer.compare(mine, theirs) === 0) return [];
  const differs = (from: number): boolean => Buffer.compare(mine.subarray(from, from + SECTOR), theirs.subarray(from, from + SECTOR)) !== 0;
  let start = 0;
  while (!differs(start)) start += SECTOR;
  let end = start;
  while (end < mine.byteLength && differs(end)) end += SECTOR;
  return [{ offset: at + start, bytes: Math.min(end, mine.byteLength) - start }];
}
