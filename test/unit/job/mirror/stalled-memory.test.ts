/** J-9: a mirror of a disk of 8 TiB that a guest writes all over, to a target that does not answer, takes no more memory than it was given. */
import { expect, test } from '@jest/globals';
import { startMirror, type BlockRequest } from '../../../../src/index.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../../../../src/block/driver.js';
import { makeRequest } from '../../../../src/block/request.js';
import { JobLab, turn } from '../../../support/job-lab.js';
import { Random } from '../../../../src/base/clock.js';

const MiB = 2 ** 20;
const SIZE = 8 * 2 ** 40;

/** Data without an end, kept nowhere. */
class Endless implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = false;
  readonly limits: BlockLimits = { requestAlignment: 1, memoryAlignment: 1, maxTransfer: Infinity };
  /** Requests wait for it. */
  stall: Promise<void> | null = null;
  inFlight = 0;
  lent = 0;
  most = { inFlight: 0, lent: 0 };

  length(): number { return SIZE; }

  async submit({ op, buffer }: BlockRequest): Promise<void> {
    const bytes = buffer?.byteLength ?? 0;
    this.most = { inFlight: Math.max(this.most.inFlight, ++this.inFlight), lent: Math.max(this.most.lent, this.lent += bytes) };
    if (op === 'read') buffer!.fill(1);
    await this.stall;
    this.inFlight--;
    this.lent -= bytes;
  }

  async blockStatus(_offset: number, bytes: number): Promise<BlockStatus> { return { kind: 'data', bytes }; }
  async close(): Promise<void> {}
}

test.each(['background', 'write-blocking'] as const)('in copy mode %s', async (copyMode) => {
  const lab = new JobLab();
  const [a, b] = [new Endless(), new Endless()];
  // what cannot be zeroed for nothing is copied from its start
  const [source, target] = [lab.add('s', a), lab.add('t', b, { discard: 'ignore' })];
  const door = await lab.guest(source);
  let letGo = (): void => undefined;
  b.stall = new Promise((resolve) => { letGo = resolve; });
  const before = process.memoryUsage().arrayBuffers;
  const mirror = await startMirror(lab.graph, lab.jobs, { jobId: 'j', source, target, sync: 'full', copyMode });
  // where guests wait too, it begins gently
  while (b.inFlight < (copyMode === 'background' ? 16 : 4)) await turn();
  const random = new Random(1);
  // a whole granule, which is written through though it is dirty
  const bytes = copyMode === 'background' ? 4096 : 65_536;
  const data = Buffer.alloc(bytes, 7);
  let answered = 0;
  const guest = async (writes: number): Promise<void> => {
    for (let left = writes; left > 0; left--) {
      await door.submit(makeRequest('write', random.below(SIZE / 65_536) * 65_536, bytes, data));
      answered++;
    }
  };
  // in the synchronous mode who writes waits for the target: as many at most as the guest has in flight
  const guests = Array.from({ length: 8 }, () => guest(2000));
  for (let turns = 0; turns < 200 || (copyMode === 'background' && answered < 16_000); turns++) await turn();
  if (copyMode === 'background') expect(answered).toBe(16_000);
  else expect(answered).toBe(0);
  expect(b.most.inFlight).toBeLessThanOrEqual(16 + 8);
  expect(b.most.lent).toBeLessThanOrEqual(16 * MiB + 8 * bytes);
  expect(a.most.lent).toBeLessThanOrEqual(16 * MiB + 8 * bytes);
  // its buffers, one bit for each granule of 64 KiB, and some room
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * MiB + SIZE / 65_536 / 8 + 32 * MiB);
  mirror.blockJob.job.cancel(true);
  letGo();
  await Promise.all(guests);
  await mirror.blockJob.job.ended;
}, 60_000);
