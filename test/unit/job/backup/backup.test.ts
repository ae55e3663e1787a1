/** J-22: guests write, zero and discard at random while a backup runs: the target holds the instant at which it began, byte for byte. */
import { expect, test } from '@jest/globals';
import { makeRequest, Random, type BlockNode } from '../../../../src/index.js';
import { addBitmap, findBitmap } from '../../../../src/block/bitmap-verbs.js';
import { prepareBackup, startBackup, type BackupOptions } from '../../../../src/job/backup/backup.js';
import { JobTransaction } from '../../../../src/job/job-transaction.js';
import { JobLab, LabDisk, RandomGuest, turn } from '../../../support/job-lab.js';

const CLUSTER = 65536;

function fill(disk: LabDisk, seed: number): void {
  const random = new Random(seed);
  for (let at = 0; at < disk.length(); at += 4096) {
    if (random.chance(0.3)) continue;
    const data = Buffer.alloc(Math.min(4096, disk.length() - at), random.below(255) + 1);
    void disk.memory.submit(makeRequest('write', at, data.byteLength, data));
  }
}

/** What the disk held at the end of the drained section in which the backup began. */
function watchInstant(node: BlockNode, disk: LabDisk): () => Buffer {
  const drained = node.drained.bind(node);
  let instant: Buffer | null = null;
  node.drained = (section) => drained(async () => {
    const result = await section();
    instant ??= disk.content();
    return result;
  });
  return () => instant!;
}

function setUp(seed: number, bytes = 20 * CLUSTER + 4096 * (seed % 5) + 512) {
  const lab = new JobLab();
  const disks = [1, 2].map((index) => new LabDisk({ bytes, seed: seed * 10 + index }));
  const [a, b] = disks as [LabDisk, LabDisk];
  fill(a, seed);
  fill(b, seed + 1000);
  const [source, target] = [lab.add('s', a), lab.add('t', b)];
  return { lab, a, b, source, target };
}

const OPTIONS = { jobId: 'j', sync: 'full' } as const;

test('the target equals the instant, whatever guests do, through pauses and changes of speed', async () => {
  for (let seed = 1; seed <= 16; seed++) {
    const { lab, a, b, source, target } = setUp(seed);
    const random = new Random(seed);
    const door = await lab.guest(source);
    const instant = watchInstant(source, a);
    const guest = new RandomGuest(door, seed, { requests: 6, maxBytes: 3 * CLUSTER });
    for (let left = random.below(20); left > 0; left--) await turn();
    const { job } = await startBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, maxWorkers: random.pick([1, 4, 64]), maxChunk: random.pick([0, CLUSTER]), speed: random.pick([0, 0, 50_000_000]) });
    while (!job.ran) {
      await turn();
      if (random.chance(0.1) && job.status === 'running' && !job.ran) {
        job.pause();
        for (let left = random.below(10); left > 0; left--) await turn();
        if (job.userPaused && (job.status === 'running' || job.status === 'paused')) job.resume();
      }
    }
    await job.ended;
    await guest.stop();
    expect({ seed, error: job.error, errors: guest.errors, equal: b.content().equals(instant()) }).toEqual({ seed, error: null, errors: 0, equal: true });
    expect(source.bitmaps.info()).toEqual([]);
    expect(lab.graph.nodes()).toEqual([source, target]);
  }
});

test('no cluster is copied twice, and none is written that the bitmap does not have', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const { lab, b, source, target } = setUp(seed);
    await addBitmap(source, { name: 'b', granularity: CLUSTER });
    const door = await lab.guest(source);
    const before = new RandomGuest(door, seed, { maxBytes: 512 });
    for (let left = 5; left > 0; left--) await turn();
    await before.stop();
    const bitmap = findBitmap(source, 'b');
    const dirty = new Set<number>();
    for (let at = 0; at < source.length(); at += CLUSTER) if (bitmap.get(at)) dirty.add(at / CLUSTER);
    b.log.length = 0;
    const { job } = await startBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, sync: 'bitmap', bitmap: 'b', bitmapMode: 'on-success' });
    const guest = new RandomGuest(door, seed + 1, { requests: 6, maxBytes: 3 * CLUSTER });
    await job.ended;
    await guest.stop();
    const written = b.log.filter(({ op }) => op !== 'flush').flatMap(({ offset, bytes }) => Array.from({ length: Math.ceil(bytes / CLUSTER) }, (_, index) => offset / CLUSTER + index));
    expect(new Set(written).size).toBe(written.length);
    expect(written.every((cluster) => dirty.has(cluster))).toBe(true);
  }
});

test('J-18: chains of incremental backups, some of which fail or are cancelled, give every instant', async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const { lab, a, b, source, target } = setUp(seed, 24 * CLUSTER);
    const random = new Random(seed);
    await addBitmap(source, { name: 'b', granularity: CLUSTER });
    findBitmap(source, 'b').set(0, source.length());
    const door = await lab.guest(source);
    const guest = new RandomGuest(door, seed, { maxBytes: CLUSTER });
    for (let round = 0; round < 6; round++) {
      const backup: BackupOptions = { ...OPTIONS, source, target, sync: 'bitmap', bitmap: 'b', bitmapMode: random.pick(['on-success', 'always'] as const) };
      const instant = watchInstant(source, a);
      const fate = random.pick(['done', 'done', 'fails', 'cancelled'] as const);
      let writes = 0;
      if (fate === 'fails') b.fault = ({ op }) => { if (op !== 'flush' && ++writes === 3) throw new Error('no'); };
      const { job } = await startBackup(lab.graph, lab.jobs, backup);
      if (fate === 'cancelled') {
        for (let left = random.below(15); left > 0; left--) await turn();
        if (!job.ran) job.cancel();
      }
      await job.ended;
      b.fault = null;
      // a write of the guest may have met the error: it failed as it was told to
      if (job.error === null) expect({ seed, round, equal: b.content().equals(instant()) }).toEqual({ seed, round, equal: true });
      expect(findBitmap(source, 'b')).toMatchObject({ busy: false, enabled: true });
    }
    await guest.stop();
    const instant = watchInstant(source, a);
    const last = await startBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, sync: 'incremental', bitmap: 'b' });
    await last.job.ended;
    expect({ seed, equal: b.content().equals(instant()) }).toEqual({ seed, equal: true });
    expect(findBitmap(source, 'b').count).toBe(0);
  }
});

test('what is prepared and given up has changed nothing; a cancelled backup lets guests go on', async () => {
  const { lab, b, source, target } = setUp(3);
  await addBitmap(source, { name: 'b' });
  const before = b.content();
  const prepared = await prepareBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, sync: 'full', bitmap: 'b', bitmapMode: 'always' });
  await prepared.giveUp();
  expect(lab.seen).toEqual(['j created', 'j aborting', 'j concluded', 'j null']);
  expect(b.content().equals(before)).toBe(true);
  expect(findBitmap(source, 'b')).toMatchObject({ busy: false, enabled: true });
  const door = await lab.guest(source);
  const guest = new RandomGuest(door, 5);
  const { job } = await startBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, speed: 1 });
  for (let left = 30; left > 0; left--) await turn();
  const begun = performance.now();
  job.cancel();
  await job.ended; // J-13: a job that may copy one byte per second
  expect(performance.now() - begun).toBeLessThan(1000);
  await guest.stop();
  expect(guest.errors).toBe(0);
  expect(lab.graph.nodes()).toEqual([source, target]);
});

test('J-18: of a group in which one backup fails, no bitmap loses a bit; of one that succeeds, each loses what was copied', async () => {
  for (const fails of [true, false]) {
    const { lab, b, source, target } = setUp(11, 8 * CLUSTER);
    const [c, d] = [new LabDisk({ bytes: 8 * CLUSTER, seed: 5 }), new LabDisk({ bytes: 8 * CLUSTER, seed: 6 })];
    const [second, secondTarget] = [lab.add('s2', c), lab.add('t2', d)];
    for (const node of [source, second]) {
      await addBitmap(node, { name: 'b', granularity: CLUSTER });
      await node.write(CLUSTER, Buffer.alloc(3 * CLUSTER, 3));
    }
    const door = await lab.guest(second);
    const transaction = new JobTransaction();
    const backups = [];
    for (const [jobId, from, to] of [['j', source, target], ['k', second, secondTarget]] as const) {
      backups.push(await prepareBackup(lab.graph, lab.jobs, { jobId, source: from, target: to, sync: 'incremental', bitmap: 'b', transaction }));
    }
    if (fails) b.fault = ({ op }) => { if (op === 'write') throw new Error('no'); };
    for (const backup of backups) await backup.start();
    for (const backup of backups) await backup.goOn();
    await door.submit(makeRequest('write', 6 * CLUSTER, 512, Buffer.alloc(512, 9)));
    await transaction.ended;
    expect(backups.map(({ blockJob }) => blockJob.job.failed)).toEqual([fails, fails]);
    expect([source, second].map((node) => findBitmap(node, 'b').count / CLUSTER)).toEqual(fails ? [3, 4] : [0, 1]);
  }
});

test.each(['report', 'stop'] as const)('a target that cannot be flushed holds no backup: the policy %s is for that too', async (policy) => {
  const { lab, b, source, target } = setUp(4);
  let flushes = 0;
  b.fault = ({ op }) => { if (op === 'flush' && flushes++ === 0) throw new Error('no'); };
  const { job } = await startBackup(lab.graph, lab.jobs, { ...OPTIONS, source, target, onTargetError: policy });
  if (policy === 'stop') {
    while (!job.userPaused) await turn();
    job.resume();
  }
  await job.ended;
  expect([job.failed, flushes]).toEqual(policy === 'report' ? [true, 1] : [false, 2]);
});
