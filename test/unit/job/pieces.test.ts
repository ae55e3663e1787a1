/** A walk over a disk piece by piece, without a disk. */
import { expect, test } from '@jest/globals';
import type { BlockJob } from '../../../src/job/block-job.js';
import type { JobContext } from '../../../src/job/job.js';
import { PIECE_BYTES, PieceRun, type Piece } from '../../../src/job/pieces.js';

const LENGTH = 100 * PIECE_BYTES;

interface Walk {
  readonly speed?: number;
  /** Throws where the copy of a range fails. */
  readonly copy?: (offset: number, end: number) => void;
  readonly policy?: (error: unknown) => 'again' | 'skip';
}

/** In units of a piece: what was copied, how far it was when an error was told, and how far it came. */
async function walk({ speed = 0, copy = () => undefined, policy = (error) => { throw error; } }: Walk): Promise<{ copies: [number, number][]; toldAt: number[]; at: number; failed: unknown }> {
  let at = 0;
  const copies: [number, number][] = [];
  const toldAt: number[] = [];
  const self = { speed, spend: () => 0 } as unknown as BlockJob;
  const context = { progress: (current: number) => { at = current; }, pausePoint: () => Promise.resolve(), sleep: () => Promise.resolve() } as unknown as JobContext;
  const run = new PieceRun<Piece>(self, context, LENGTH, {
    look: (offset, bytes) => Promise.resolve({ offset, bytes, copy: true }),
    copy: ({ offset, bytes }, buffer) => {
      expect(buffer.byteLength).toBe(bytes);
      copy(offset / PIECE_BYTES, (offset + bytes) / PIECE_BYTES);
      copies.push([offset / PIECE_BYTES, bytes / PIECE_BYTES]);
      return Promise.resolve();
    },
    failed: (error) => {
      toldAt.push(at / PIECE_BYTES);
      return policy(error);
    },
  });
  const failed = await run.run().then(() => undefined, (error: unknown) => error);
  return { copies, toldAt, at: at / PIECE_BYTES, failed };
}

/** Every piece was copied. */
function covers(copies: readonly [number, number][], missing: readonly number[] = []): boolean {
  const copied = new Set(copies.flatMap(([offset, count]) => Array.from({ length: count }, (_, index) => offset + index)));
  return Array.from({ length: LENGTH / PIECE_BYTES }, (_, index) => index).every((piece) => copied.has(piece) !== missing.includes(piece));
}

function failsAt(piece: number, times: number): (offset: number, end: number) => void {
  let left = times;
  return (offset, end) => {
    if (offset <= piece && piece < end && left-- > 0) throw new Error(`piece ${piece}`);
  };
}

test('pieces are small at first, and large once all went well; with a speed limit they stay small', async () => {
  const free = await walk({});
  expect(free.at).toBe(100);
  expect(covers(free.copies)).toBe(true);
  expect(free.copies.slice(0, 32).every(([, count]) => count === 1)).toBe(true);
  expect(free.copies.slice(40, -1).every(([, count]) => count === 4)).toBe(true);
  const limited = await walk({ speed: 1 });
  expect(limited.copies.length).toBe(100);
});

test.each([5, 61, 62, 63, 64, 99])('an error that stays is told where the small piece %i begins, which has it', async (piece) => {
  const { toldAt, at, failed } = await walk({ copy: failsAt(piece, Infinity) });
  expect(failed).toEqual(new Error(`piece ${piece}`));
  expect(toldAt).toEqual([piece]);
  expect(at).toBe(piece);
});

test.each([5, 62, 99])('what is skipped is a small piece: %i', async (piece) => {
  const { copies, toldAt, at, failed } = await walk({ copy: failsAt(piece, Infinity), policy: () => 'skip' });
  expect(failed).toBeUndefined();
  expect(at).toBe(100);
  expect(toldAt).toEqual([piece]);
  expect(covers(copies, [piece])).toBe(true);
});

test.each([5, 62])('an error that was there once is told once, and all is copied: piece %i', async (piece) => {
  const { copies, toldAt, at } = await walk({ copy: failsAt(piece, 1), policy: () => 'again' });
  expect(at).toBe(100);
  expect(toldAt.length).toBe(1);
  expect(covers(copies)).toBe(true);
});
