/** What is compared before the target takes the source's place: all of it, also what guests change meanwhile, and nothing else decides. */
import { expect, test } from '@jest/globals';
import { makeRequest } from '../../../../src/index.js';
import { firstDifference } from '../../../../src/job/mirror/verify.js';
import { gate, KiB, MirrorLab } from '../../../support/mirror-lab.js';

const SIZE = 5 * 1024 * KiB + 512;

async function lab(fill: number | null = 0x55): Promise<MirrorLab> {
  return MirrorLab.create({ bytes: SIZE, turns: 1, fill });
}

/** Behind everybody's back. */
function spoil(where: MirrorLab, disk: 'source' | 'target', offset: number, bytes: number): Promise<void> {
  return where.disks[disk].memory.submit(makeRequest('write', offset, bytes, Buffer.alloc(bytes, 0xee)));
}

function targetReads(where: MirrorLab): number {
  return where.disks.target.log.filter(({ op }) => op === 'read').reduce((sum, { bytes }) => sum + bytes, 0);
}

test.each([['background'], ['write-blocking'], ['auto']] as const)('equal disks: all is read back, and the users move (%s)', async (copyMode) => {
  const where = await lab();
  await where.start({ verify: true, copyMode });
  await where.complete();
  expect([where.job.error, where.equal]).toEqual([null, true]);
  expect(where.door.node).toBe(where.target);
  expect(targetReads(where)).toBeGreaterThanOrEqual(SIZE);
  expect(where.mirror.figures().unverified).toBe(0);
});

test('without being asked, nothing is read back', async () => {
  const where = await lab();
  await where.start();
  await where.complete();
  expect([targetReads(where), where.mirror.figures().unverified]).toEqual([0, null]);
});

test('what both hold as zeros is not read', async () => {
  const where = await lab(null);
  await where.start({ verify: true });
  await where.complete();
  expect([where.job.error, where.equal]).toEqual([null, true]);
  expect(targetReads(where)).toBeLessThanOrEqual(512); // the end, in this memory
});

test.each([
  ['the first sector', [[0, 1]], 0, 512],
  ['the last sector', [[SIZE - 1, 1]], SIZE - 512, 512],
  ['a run', [[1024 * KiB + 1024, 1536]], 1024 * KiB + 1024, 1536],
  ['the first of several', [[3 * 1024 * KiB, 512], [2 * 1024 * KiB + 512, 600]], 2 * 1024 * KiB + 512, 1024],
] as const)('%s differs: the job fails, tells where, and nobody moves', async (_, damage, offset, bytes) => {
  const where = await lab();
  await where.start({ verify: true });
  await where.ready();
  for (const [at, length] of damage) await spoil(where, 'target', at, length);
  where.job.complete();
  await where.job.ended;
  expect(where.job.error).toBe(`Source and target differ in ${bytes} bytes at ${offset}`);
  expect(where.door.node).toBe(where.source);
  expect(where.graph.nodes()).toEqual([where.source, where.target]);
});

test('zeros on one side only are a difference', async () => {
  const where = await lab(null);
  await where.start({ verify: true });
  await where.ready();
  await spoil(where, 'target', 65_536, 10);
  where.job.complete();
  await where.job.ended;
  expect(where.job.error).toBe('Source and target differ in 512 bytes at 65536');
});

test('a copy that is left in place is compared as well', async () => {
  const where = await lab();
  await where.start({ verify: true });
  await where.ready();
  await spoil(where, 'target', 0, 1);
  where.job.cancel(false);
  await where.job.ended;
  expect(where.job.error).toContain('differ in 512 bytes at 0');
});

test.each([['background'], ['write-blocking']] as const)('guests that write meanwhile are no difference, and what they wrote is compared (%s)', async (copyMode) => {
  const where = await lab();
  await where.start({ verify: true, copyMode });
  await where.ready();
  let over = false;
  const guest = (async () => {
    for (let n = 0; !over; n++) {
      await where.door.submit(makeRequest('write', n * 7919 % (SIZE - 3000), 3000, Buffer.alloc(3000, n)));
      await where.turns(3);
    }
  })();
  where.job.complete();
  await where.job.ended;
  over = true;
  await guest;
  expect([where.job.error, where.equal]).toEqual([null, true]);
  expect(targetReads(where)).toBeGreaterThan(SIZE);
});

test('a write that was let go in the drained section is compared when the target has it', async () => {
  const where = await lab();
  await where.start({ verify: true, copyMode: 'write-blocking', granularity: 64 * KiB });
  await where.ready();
  const held = gate();
  where.disks.target.before = ({ op }) => (op === 'write' ? held.opened : undefined);
  const writing = where.door.submit(makeRequest('write', 0, 64 * KiB, Buffer.alloc(64 * KiB, 1)));
  where.job.complete();
  while (!where.door.node.draining) await where.turns(1);
  where.mirror.setCopyMode('background');
  await writing;
  await where.turns(200);
  expect([where.job.error, where.job.ran]).toEqual([null, false]);
  expect(where.mirror.figures().unverified).toBeGreaterThan(0);
  held.open();
  await where.job.ended;
  expect([where.job.error, where.equal, where.mirror.figures().unverified]).toEqual([null, true, 0]);
  expect(where.door.node).toBe(where.target);
});

test('a forced cancel while a target does not answer: nobody waits for the comparison', async () => {
  const where = await lab();
  await where.start({ verify: true });
  await where.ready();
  const held = gate();
  where.disks.target.before = ({ op }) => (op === 'read' ? held.opened : undefined);
  where.job.complete();
  while (where.disks.target.inFlight === 0) await where.turns(1);
  where.job.cancel(true);
  await where.turns(100);
  expect([where.seen.at(-1), where.door.node === where.source]).toEqual(['j aborting', true]);
  held.open();
  await where.job.ended;
  await where.graph.remove('target');
});

test('a target that cannot be read back fails the job', async () => {
  const where = await lab();
  await where.start({ verify: true });
  await where.ready();
  where.disks.target.fault = ({ op }) => { if (op === 'read') throw Object.assign(new Error('read'), { code: 'EIO' }); };
  where.job.complete();
  await where.job.ended;
  expect(where.job.error).toBe('Input/output error');
  expect(where.door.node).toBe(where.source);
});

test.each(['top', 'none'] as const)('sync mode %s has nothing to be compared with', async (sync) => {
  const where = await lab();
  await expect(where.start({ verify: true, sync })).rejects.toThrow(`Sync mode '${sync}'`);
});

test('a difference ends with its sectors, or the disk', () => {
  const [mine, theirs] = [Buffer.alloc(1300), Buffer.alloc(1300)];
  expect(firstDifference(mine, theirs, 0)).toBeNull();
  theirs[1299] = 1;
  expect(firstDifference(mine, theirs, 4096)).toEqual({ offset: 4096 + 1024, bytes: 276 });
});
