/** The background half of a mirror: what it copies, in what memory, and when it says that it is done. */
import { expect, test } from '@jest/globals';
import { addBitmap, makeRequest } from '../../../../src/index.js';
import { BlockError } from '../../../../src/base/errors.js';
import { VirtualClock } from '../../../support/virtual-clock.js';
import { gate, KiB, MirrorLab } from '../../../support/mirror-lab.js';

const G = 64 * KiB;

test('READY and COMPLETED come after a flush of the target, which comes after the last write (J-3)', async () => {
  const lab = await MirrorLab.create({ discard: 'ignore' });
  const order: string[] = [];
  lab.disks.target.before = ({ op }) => void order.push(op);
  lab.onStatus = (_id, status) => void order.push(status);
  await lab.start();
  await lab.ready();
  await lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 1)));
  await lab.complete();
  expect(order.filter((word, index) => word !== order[index - 1])).toEqual(['created', 'running', 'write', 'flush', 'ready', 'write', 'flush', 'waiting', 'pending', 'concluded', 'null']);
});

test('a failing flush is an error of the target: stopped, it is tried again, and what may be lost is copied again', async () => {
  const lab = await MirrorLab.create();
  let fail = 1;
  lab.disks.target.fault = ({ op }) => { if (op === 'flush' && fail-- > 0) throw new BlockError('IO', 'broken', { errno: 'EIO' }); };
  await lab.start({ onTargetError: 'stop' });
  while (lab.job.status !== 'paused') await lab.turns(1);
  expect(lab.count('j ready')).toBe(0);
  expect(lab.mirror.blockJob.ioStatus).toBe('failed');
  const writes = (): number => lab.disks.target.log.filter(({ op }) => op === 'write').length;
  const before = writes();
  lab.job.resume();
  await lab.complete();
  expect(writes()).toBeGreaterThan(before);
  expect(lab.equal).toBe(true);
});

test('memory and operations in flight stay within their bounds, however slow the target is (J-9)', async () => {
  const lab = await MirrorLab.create({ bytes: 8192 * KiB, turns: 0, discard: 'ignore' });
  const held = gate();
  lab.disks.target.before = async () => held.opened;
  await lab.start({ bufSize: 1024 * KiB, operations: 5 });
  await lab.turns(200);
  expect(lab.disks.target.inFlight).toBeGreaterThan(0);
  expect(lab.disks.target.inFlight).toBeLessThanOrEqual(5);
  expect(lab.disks.target.bytesInFlight).toBeLessThanOrEqual(1024 * KiB);
  held.open();
  await lab.complete();
  expect(lab.disks.target.mostInFlight).toBeLessThanOrEqual(5);
  expect(lab.disks.target.mostBytesInFlight).toBeLessThanOrEqual(1024 * KiB);
  expect(lab.disks.source.mostBytesInFlight).toBeLessThanOrEqual(1024 * KiB);
  expect(lab.equal).toBe(true);
});

test('ten minutes with a target that takes next to nothing need no more memory than the first second (J-9)', async () => {
  const clock = new VirtualClock();
  const lab = await MirrorLab.create({ bytes: 4096 * KiB, turns: 0, discard: 'ignore', clock });
  let freeAt = 0;
  lab.disks.target.before = () => {
    freeAt = Math.max(freeAt, clock.monotonicMs()) + 60_000;
    return clock.sleep(freeAt - clock.monotonicMs());
  };
  await lab.start({ bufSize: 512 * KiB });
  const most: number[] = [];
  for (let second = 0; second < 600; second += 5) {
    await clock.advance(5000);
    await lab.door.submit(makeRequest('write', (second * 7 % 64) * G, G, Buffer.alloc(G, second)));
    most.push(lab.disks.source.mostBytesInFlight - G, lab.disks.target.bytesInFlight);
  }
  expect(lab.job.isReady).toBe(false);
  expect(Math.max(...most)).toBeLessThanOrEqual(512 * KiB);
  lab.job.cancel();
  while (lab.job.status !== 'null') await clock.advance(1000);
});

test('the length need not be a multiple of anything (J-14)', async () => {
  for (const bytes of [1, 511, 512, G - 1, G + 1, 5 * G + 777]) {
    for (const copyMode of ['background', 'write-blocking'] as const) {
      const lab = await MirrorLab.create({ bytes });
      await lab.start({ copyMode, granularity: G });
      await lab.ready();
      await lab.door.submit(makeRequest('write', bytes - 1, 1, Buffer.alloc(1, 3)));
      await lab.complete();
      expect(lab.equal).toBe(true);
      expect(lab.job.info()).toMatchObject({ error: null });
    }
  }
});

test('an empty disk is ready at once', async () => {
  const lab = await MirrorLab.create({ bytes: 0 });
  await lab.start();
  await lab.complete();
  expect(lab.seen.at(-1)).toBe('j null');
  expect(lab.door.node).toBe(lab.target);
});

test('buffers smaller than a granule, granules larger than the disk (J-15)', async () => {
  for (const options of [{ granularity: 256 * KiB, bufSize: 4 * KiB }, { granularity: 1024 * KiB }, { granularity: 512, bufSize: 512 }]) {
    const lab = await MirrorLab.create({ bytes: 300 * KiB });
    await lab.start(options);
    await lab.complete();
    expect(lab.equal).toBe(true);
  }
});

test('with sync=none only what is written since is copied (J-17)', async () => {
  const lab = await MirrorLab.create({ bytes: 8 * G });
  await lab.start({ sync: 'none', granularity: G });
  await lab.ready();
  await lab.door.submit(makeRequest('write', 3 * G + 10, 20, Buffer.alloc(20, 1)));
  await lab.complete();
  const target = lab.disks.target.content();
  expect(target.subarray(3 * G, 4 * G).equals(lab.disks.source.content().subarray(3 * G, 4 * G))).toBe(true);
  expect(target.subarray(0, 3 * G).every((byte) => byte === 0x77)).toBe(true);
  expect(target.subarray(4 * G).every((byte) => byte === 0x77)).toBe(true);
});

test('with sync=bitmap only what a bitmap of the source holds is copied, and what is written since', async () => {
  const lab = await MirrorLab.create({ bytes: 8 * G });
  await addBitmap(lab.source, { name: 'b', granularity: G });
  await lab.door.submit(makeRequest('write', 2 * G, 10, Buffer.alloc(10, 1)));
  await lab.start({ sync: 'bitmap', bitmap: 'b', granularity: G });
  await lab.ready();
  const target = lab.disks.target.content();
  expect(target.subarray(2 * G, 3 * G).equals(lab.disks.source.content().subarray(2 * G, 3 * G))).toBe(true);
  expect(target.subarray(3 * G).every((byte) => byte === 0x77)).toBe(true);
  await lab.complete();
});

test('zeros are never read as data, and a target that can be zeroed cheaply is zeroed once', async () => {
  const lab = await MirrorLab.create({ bytes: 64 * G, fill: null });
  await lab.source.write(5 * G, Buffer.alloc(G, 1));
  lab.disks.source.log.length = 0;
  lab.disks.target.log.length = 0;
  await lab.start({ granularity: G });
  await lab.complete();
  expect(lab.equal).toBe(true);
  expect(lab.disks.source.log.filter(({ op }) => op === 'read').map(({ offset, bytes }) => [offset, bytes])).toEqual([[5 * G, G]]);
  expect(lab.disks.target.log.filter(({ op }) => op === 'write-zeroes').reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(128 * G);
});

test('a target that is said to be zero is not zeroed', async () => {
  const lab = await MirrorLab.create({ bytes: 64 * G, fill: null });
  await lab.target.writeZeroes(0, 64 * G);
  lab.disks.target.log.length = 0;
  await lab.source.write(5 * G, Buffer.alloc(G, 1));
  await lab.start({ granularity: G, targetIsZero: true });
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a discard after the source was asked what it holds is copied too (J-23)', async () => {
  const lab = await MirrorLab.create({ bytes: 8 * G, turns: 0 });
  let once = true;
  lab.disks.source.before = async ({ op, ioClass }) => {
    if (op !== 'read' || ioClass !== 'background' || !once) return;
    once = false;
    await lab.door.submit(makeRequest('discard', 0, 8 * G, null));
    await lab.door.submit(makeRequest('write', 4 * G, 10, Buffer.alloc(10, 2)));
  };
  await lab.start({ granularity: G });
  await lab.complete();
  expect(once).toBe(false);
  expect(lab.equal).toBe(true);
});

test('a write to zeros that were told of ahead is not lost (J-1)', async () => {
  const lab = await MirrorLab.create({ bytes: 64 * G, fill: null, turns: 0 });
  await lab.source.write(0, Buffer.alloc(G, 1));
  let once = true;
  lab.disks.target.before = async ({ op, ioClass }) => {
    if (op !== 'write-zeroes' || ioClass !== 'background' || !once) return;
    once = false;
    // everything behind is known to be zero by now, and was dirty at first
    for (let at = 0; at < 64; at += 3) await lab.door.submit(makeRequest('write', at * G + 5, 10, Buffer.alloc(10, at + 1)));
  };
  await lab.start({ granularity: G, bufSize: G });
  await lab.complete();
  expect(once).toBe(false);
  expect(lab.equal).toBe(true);
});

test('the rate limit counts what is copied, and pause and cancel cut through it (J-13, J-24)', async () => {
  const clock = new VirtualClock();
  const lab = await MirrorLab.create({ bytes: 4096 * KiB, turns: 0, clock });
  await lab.start({ speed: 100 * KiB, granularity: 4 * KiB, bufSize: 64 * KiB });
  for (let ms = 0; ms < 10_000; ms += 20) await clock.advance(20);
  const copied = lab.job.info().currentProgress;
  expect(copied).toBeGreaterThan(0.9 * 1000 * KiB);
  expect(copied).toBeLessThan(1.1 * 1000 * KiB + 64 * KiB);
  lab.mirror.blockJob.setSpeed(1);
  await clock.advance(1000);
  lab.job.pause();
  await lab.turns(5);
  expect(lab.job.status).toBe('paused');
  lab.job.resume();
  lab.job.cancel();
  await lab.job.ended;
  expect(lab.seen.at(-1)).toBe('j null');
  expect(lab.door.node).toBe(lab.source);
});

test('zeros that cost the target nothing do not count for the rate limit (J-24)', async () => {
  const clock = new VirtualClock();
  const lab = await MirrorLab.create({ bytes: 16_384 * KiB, turns: 0, clock, fill: null });
  await lab.source.write(8192 * KiB, Buffer.alloc(200 * KiB, 1));
  // all of it is dirty, as with a bitmap
  await addBitmap(lab.source, { name: 'all', granularity: 4 * KiB });
  await lab.door.submit(makeRequest('write-zeroes', 0, 8192 * KiB, null));
  await lab.door.submit(makeRequest('write', 8192 * KiB, 200 * KiB, Buffer.alloc(200 * KiB, 2)));
  await lab.start({ sync: 'bitmap', bitmap: 'all', speed: 100 * KiB, granularity: 4 * KiB, bufSize: 64 * KiB });
  let took = 0;
  for (; !lab.job.isReady && took < 60_000; took += 100) await clock.advance(100);
  // 200 KiB of data at 100 KiB/s
  expect(took).toBeGreaterThan(1000);
  expect(took).toBeLessThan(3000);
  lab.job.cancel();
  await lab.job.ended;
});

test('after a stop the same range is tried again; who resumes clears the status (J-12)', async () => {
  const lab = await MirrorLab.create();
  let fail = 1;
  const failed: number[] = [];
  lab.disks.target.fault = ({ op, offset }) => {
    if (op !== 'write' || fail-- <= 0) return;
    failed.push(offset);
    throw new BlockError('NO_SPACE', 'full', { errno: 'ENOSPC' });
  };
  await lab.start({ onTargetError: 'enospc' });
  while (lab.job.status !== 'paused') await lab.turns(1);
  expect(lab.mirror.blockJob.ioStatus).toBe('nospace');
  expect(lab.disks.target.inFlight).toBe(0);
  lab.job.resume();
  expect(lab.mirror.blockJob.ioStatus).toBe('ok');
  await lab.complete();
  expect(failed).toHaveLength(1);
  expect(lab.equal).toBe(true);
});

test('a target that fails everything: ignored, it is tried again without end and without haste; a forced cancel ends it (J-11)', async () => {
  const lab = await MirrorLab.create({ turns: 0 });
  await lab.start({ onTargetError: 'ignore' });
  await lab.ready();
  lab.disks.target.fault = () => { throw new BlockError('IO', 'gone', { errno: 'EIO' }); };
  await lab.door.submit(makeRequest('write', 0, 10, Buffer.alloc(10, 1)));
  lab.job.cancel(false); // softly: it wants to be equal first
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  expect(lab.job.ran).toBe(false);
  expect(lab.count('BLOCK_JOB_ERROR')).toBeLessThan(100);
  lab.job.cancel(true);
  await lab.job.ended;
  expect(lab.seen).toContain('j aborting');
});
