/**
 * Mirrors under a guest that never rests: at the end source and target are equal, whatever happened. The writer that races each
 * iteration does so for a few seconds; `QUIESCE_RACE_SECONDS=60` is what trap J-1 asks for, `QUIESCE_RACE_SEED` takes another seed.
 */
import { describe, expect, test } from '@jest/globals';
import { startMirror, type Mirror } from '../../../../src/job/mirror/mirror.js';
import { Random } from '../../../../src/base/clock.js';
import { makeRequest, type BlockRequest } from '../../../../src/block/request.js';
import { JobLab, LabDisk, RandomGuest, turn } from '../../../support/job-lab.js';

const KiB = 1024;

interface Race {
  readonly seed: number;
  readonly copyMode: 'background' | 'write-blocking' | 'switching';
  readonly granularity?: number;
  readonly bytes?: number;
  readonly bufSize?: number;
  /** The guest takes so long between its requests. */
  readonly pauseTurns?: number;
}

async function race({ seed, copyMode, granularity, bytes = 2048 * KiB, bufSize, pauseTurns = 1 }: Race): Promise<void> {
  const lab = new JobLab();
  const disks = { source: new LabDisk({ bytes, seed }), target: new LabDisk({ bytes, seed: seed + 1 }) };
  const source = lab.add('source', disks.source);
  const target = lab.add('target', disks.target);
  await source.write(0, Buffer.alloc(bytes / 2, 0x55));
  await target.write(0, Buffer.alloc(bytes, 0x77));
  const door = await lab.guest(source);
  const guest = new RandomGuest(door, seed, { pauseTurns });
  const mirror = await startMirror(lab.graph, lab.jobs, {
    jobId: 'j', source, target, sync: 'full', granularity, bufSize, copyMode: copyMode === 'switching' ? 'background' : copyMode,
  });
  const { job } = mirror.blockJob;
  let equal: boolean | null = null;
  // its work is done: guests wait, nothing is in flight
  lab.onStatus = (_id, status) => { if (status === 'waiting') equal = disks.source.content().equals(disks.target.content()); };
  if (copyMode === 'switching') await switchForAWhile(mirror, seed);
  if (copyMode === 'background') setTimeout(() => void guest.stop(), 300); // alone it cannot keep up with such a guest
  while (!job.isReady) await turn();
  for (let left = 50; left > 0; left--) await turn();
  job.complete();
  await job.ended;
  expect(job.error).toBeNull();
  expect(equal).toBe(true);
  expect(guest.operations).toBeGreaterThan(10);
  expect(door.node).toBe(target);
  const writes = disks.source.log.length;
  for (let left = 20; left > 0; left--) await turn();
  await guest.stop();
  expect(disks.source.log.length).toBe(writes);
  expect(guest.errors).toBe(0);
  expect(lab.graph.nodes()).toEqual([source, target]);
}

async function switchForAWhile(mirror: Mirror, seed: number): Promise<void> {
  for (let round = 0; round < 30; round++) {
    mirror.setCopyMode(round % 2 === 0 ? 'write-blocking' : 'background');
    for (let left = (seed * 7 + round * 13) % 11; left >= 0; left--) await turn();
  }
  mirror.setCopyMode('write-blocking');
}

describe('at completion the target is what the source was', () => {
  for (const copyMode of ['background', 'write-blocking', 'switching'] as const) {
    test(`${copyMode} (J-1, J-2, J-5, J-6${copyMode === 'background' ? '' : ', J-7, J-10'})`, async () => {
      for (let seed = 1; seed <= 4; seed++) await race({ seed, copyMode, granularity: seed % 2 === 0 ? 4 * KiB : undefined });
    }, 60_000);
  }
});

const RACE_SECONDS = Number(process.env['QUIESCE_RACE_SECONDS'] ?? 3);
const RACE_SEED = Number(process.env['QUIESCE_RACE_SEED'] ?? 1);

/** Each time the job reads a range, or writes it to the target, a guest writes into it: before, meanwhile or right afterwards. */
test(`a write in each iteration of the copy is never lost (J-1), for ${RACE_SECONDS} s, seed ${RACE_SEED}`, async () => {
  const lab = new JobLab();
  const random = new Random(RACE_SEED);
  const bytes = 4096 * KiB;
  const disks = { source: new LabDisk({ bytes, seed: RACE_SEED }), target: new LabDisk({ bytes, seed: RACE_SEED + 1 }) };
  const [source, target] = [lab.add('source', disks.source), lab.add('target', disks.target, { discard: 'ignore' })];
  const door = await lab.guest(source);
  let [raced, under, racing] = [0, 0, true];
  const race = ({ offset, bytes: length, ioClass }: BlockRequest): void => {
    if (!racing || ioClass !== 'background' || length === 0 || under > 32) return;
    raced++;
    under++;
    const at = offset + random.below(length);
    const data = Buffer.alloc(Math.min(bytes - at, 1 + random.below(6000)), 1 + random.below(255));
    const late = random.below(6);
    void (async () => {
      for (let left = late; left > 0; left--) await turn();
      await door.submit(makeRequest('write', at, data.byteLength, data));
      under--;
    })();
  };
  await source.write(0, Buffer.alloc(bytes, 0x55));
  disks.source.before = race;
  disks.target.before = race;
  const mirror = await startMirror(lab.graph, lab.jobs, { jobId: 'j', source, target, sync: 'full', granularity: 64 * KiB });
  const { job } = mirror.blockJob;
  let equal: boolean | null = null;
  lab.onStatus = (_id, status) => { if (status === 'waiting') equal = disks.source.content().equals(disks.target.content()); };
  const end = performance.now() + RACE_SECONDS * 1000;
  while (performance.now() < end) {
    mirror.setCopyMode(random.chance(0.7) ? 'background' : 'write-blocking');
    // where all writes went to the target as well, there is no iteration to be raced any more
    await door.submit(makeRequest('write', random.below(bytes - 1), 1, Buffer.alloc(1, 1 + random.below(255))));
    for (let left = 50; left > 0; left--) await turn();
    disks.source.log.length = disks.target.log.length = 0;
  }
  racing = false;
  while (!job.isReady || under > 0) await turn();
  job.complete();
  await job.ended;
  expect([job.error, equal]).toEqual([null, true]);
  expect(raced).toBeGreaterThan(100 * RACE_SECONDS / 3);
}, RACE_SECONDS * 1000 + 60_000);
