/** How mirrors end: completed, cancelled softly or for good, with a target that never answers, in other places than their own. */
import { describe, expect, test } from '@jest/globals';
import { CopyOnReadFilter, makeRequest, Permission } from '../../../../src/index.js';
import { startBackup } from '../../../../src/job/backup/backup.js';
import { LabDisk } from '../../../support/job-lab.js';
import { gate, KiB, MirrorLab } from '../../../support/mirror-lab.js';

test('a soft cancel of a ready mirror leaves a copy of that moment, and the users where they are', async () => {
  const lab = await MirrorLab.create();
  await lab.start();
  await lab.ready();
  await lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 1)));
  lab.job.cancel(false);
  await lab.job.ended;
  expect(lab.equal).toBe(true);
  expect(lab.door.node).toBe(lab.source);
  expect(lab.count('BLOCK_JOB_COMPLETED')).toBe(1);
  expect(lab.graph.nodes()).toEqual([lab.source, lab.target]);
  await lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 2)));
});

test('J-2: a write that is under way when nothing is dirty is in the copy before the users change over', async () => {
  for (const copyMode of ['background', 'write-blocking'] as const) {
    const lab = await MirrorLab.create({ turns: 0 });
    await lab.start({ copyMode });
    await lab.ready();
    const held = gate();
    lab.disks.source.before = async ({ op }) => { if (op === 'write') await held.opened; };
    const late = lab.door.submit(makeRequest('write', 70_000, 100, Buffer.alloc(100, 9)));
    await lab.turns(10);
    lab.job.complete();
    await new Promise((resolve) => { setTimeout(resolve, 150); }); // it looks again after 100 ms
    await lab.turns(50);
    // nothing was dirty and nothing was being copied, and yet it must not have ended
    expect([lab.mirror.figures().dirty, lab.job.ran]).toEqual([0, false]);
    held.open();
    await late;
    await lab.job.ended;
    expect([lab.job.error, lab.equal]).toEqual([null, true]);
    expect(lab.disks.target.content().subarray(70_000, 70_100).every((byte) => byte === 9)).toBe(true);
  }
});

test('J-2: a write that comes after the last look at what is dirty goes to the new disk', async () => {
  const lab = await MirrorLab.create({ turns: 0 });
  await lab.start();
  await lab.ready();
  const held = gate();
  let flushing = false;
  lab.disks.target.before = async ({ op }) => {
    if (op !== 'flush') return;
    flushing = true;
    await held.opened;
  };
  await lab.door.submit(makeRequest('write', 1000, 100, Buffer.alloc(100, 6))); // so that there is something to flush
  lab.job.complete();
  for (let left = 500; left > 0 && !flushing; left--) await new Promise((resolve) => { setTimeout(resolve, 10); });
  expect(flushing).toBe(true);
  lab.disks.source.log.length = 0;
  let answered = false;
  const late = lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 7))).then(() => { answered = true; });
  await lab.turns(50);
  expect(answered).toBe(false);
  held.open();
  await Promise.all([late, lab.job.ended]);
  expect(lab.equal).toBe(true);
  expect(lab.disks.source.log).toEqual([]);
  expect(lab.disks.target.content().subarray(0, 100).every((byte) => byte === 7)).toBe(true);
});

test('before it is ready, any cancel is for good', async () => {
  const lab = await MirrorLab.create();
  await lab.start({ speed: 1, granularity: 4 * KiB, bufSize: 4 * KiB });
  await lab.turns(20);
  lab.job.cancel(false);
  await lab.job.ended;
  expect(lab.count('BLOCK_JOB_CANCELLED')).toBe(1);
  expect(lab.graph.nodes()).toEqual([lab.source, lab.target]);
});

/** A disk that never answers, until the gate opens; or a server, whose requests can be given up. */
async function silent(lab: MirrorLab, kind: 'disk' | 'server'): Promise<ReturnType<typeof gate>> {
  const held = gate();
  lab.disks.target.before = async () => held.opened;
  if (kind === 'server') Object.assign(lab.disks.target, { formatName: 'nbd', cancelInFlight: () => held.open() });
  return held;
}

describe.each(['disk', 'server'] as const)('a forced cancel though the target, a %s, does not answer', (kind) => {
  /** Of a disk's mirror it is aborting at once, and ends with its answer; a server is given up. */
  async function ends(lab: MirrorLab, held: ReturnType<typeof gate>): Promise<void> {
    const began = performance.now();
    lab.job.cancel(true);
    if (kind === 'disk') {
      await new Promise((resolve) => { setTimeout(resolve, 100); });
      expect(lab.seen.at(-1)).toBe('j aborting');
      // who wrote now could be overtaken
      await expect(lab.guest(lab.target)).rejects.toThrow("Permission conflict on node 'target'");
      held.open();
    }
    await lab.job.ended;
    expect(performance.now() - began).toBeLessThan(1000);
    expect(lab.seen.at(-1)).toBe('j null');
    await lab.graph.remove('target');
  }

  test.each(['background', 'write-blocking'] as const)('guests go on at once (%s)', async (copyMode) => {
    const lab = await MirrorLab.create({ discard: 'ignore' });
    await lab.start({ copyMode });
    await lab.ready();
    const held = await silent(lab, kind);
    const writing = lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 1)));
    const second = lab.door.submit(makeRequest('write', 50, 100, Buffer.alloc(100, 2)));
    await new Promise((resolve) => { setTimeout(resolve, 150); });
    expect(lab.disks.target.inFlight).toBeGreaterThan(0);
    const ended = ends(lab, held);
    await Promise.all([writing, second]);
    await lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 3)));
    await ended;
    expect(lab.door.node === lab.source).toBe(true);
  });

  test('while it keeps all of the memory: nothing more is claimed, nor waits for it', async () => {
    const lab = await MirrorLab.create({ discard: 'ignore' });
    const held = await silent(lab, kind);
    await lab.start({ granularity: 4 * KiB, bufSize: 64 * KiB }); // one operation takes all of the memory
    await lab.turns(50);
    expect(lab.disks.target.inFlight).toBe(1);
    expect(lab.mirror.figures().inFlight).toBe(64 * KiB);
    await ends(lab, held);
    expect(lab.count('BLOCK_JOB_CANCELLED')).toBe(1);
  });
});

test('a forced cancel while the target is being zeroed and does not answer', async () => {
  const lab = await MirrorLab.create();
  const held = await silent(lab, 'disk');
  await lab.start();
  await lab.turns(10);
  lab.job.cancel(true);
  await lab.turns(50);
  expect(lab.seen.at(-1)).toBe('j aborting');
  held.open();
  await lab.job.ended;
});

describe('what an abandoned mirror sent arrives before anybody else writes there', () => {
  test.each(['mirror', 'backup'] as const)('a %s', async (next) => {
    const lab = await MirrorLab.create({ turns: 0, discard: 'ignore' });
    const held = gate();
    let waiting = 0;
    lab.disks.target.before = async ({ op, offset }) => {
      if (op === 'write' && offset === 0 && waiting++ === 0) await held.opened;
    };
    await lab.start();
    while (waiting === 0) await lab.turns(1);
    lab.job.cancel(true);
    await lab.turns(100);
    expect(lab.seen.at(-1)).toBe('j aborting');
    await lab.door.submit(makeRequest('write', 0, 4096, Buffer.alloc(4096, 9)));
    const again = async (): Promise<void> => {
      if (next === 'backup') return (await startBackup(lab.graph, lab.jobs, { jobId: 'k', sync: 'full', source: lab.source, target: lab.target })).job.ended;
      await lab.start({ jobId: 'k' });
      await lab.complete();
    };
    await expect(again()).rejects.toThrow("Permission conflict on node 'target'");
    held.open();
    await lab.job.ended;
    await again();
    expect(lab.disks.target.content().equals(lab.disks.source.content())).toBe(true);
  });
});

test('nobody can remove or resize what a mirror works on; afterwards they can', async () => {
  const lab = await MirrorLab.create();
  await lab.graph.detach(lab.door);
  await lab.start();
  await expect(lab.graph.remove('source')).rejects.toThrow("Node 'source' is busy: block device is in use by block job: mirror");
  await expect(lab.graph.attach(lab.source, { used: Permission.RESIZE, shared: Permission.ALL })).rejects.toThrow(/'resize'.*block job 'j'/);
  await lab.complete();
  await lab.graph.remove('source');
  await lab.graph.remove('target');
});

test('the place that the target takes may be that of a filter below', async () => {
  const lab = await MirrorLab.create();
  const filter = lab.add('top', new CopyOnReadFilter({ child: lab.source }));
  await lab.graph.refresh([filter]);
  const door = await lab.guest(filter);
  await lab.graph.detach(lab.door);
  await lab.start({ source: filter, replaces: 'source' });
  await lab.complete();
  expect(lab.equal).toBe(true);
  expect(door.node).toBe(filter);
  expect(filter.children[0]?.node).toBe(lab.target);
});

test('a place that shows something else is refused, and one that is gone', async () => {
  const lab = await MirrorLab.create();
  lab.add('other', new LabDisk({ bytes: 256 * KiB }));
  await expect(lab.start({ replaces: 'other' })).rejects.toThrow("Cannot replace 'other' by a node mirrored from 'source'");
  await expect(lab.start({ replaces: 'none' })).rejects.toThrow("Failed to find node with node-name='none'");
  expect(lab.graph.nodes()).toHaveLength(3);
});

test('a target of another size fails the job, whose users keep the source', async () => {
  const lab = await MirrorLab.create({ targetBytes: 512 * KiB });
  await lab.start();
  await lab.job.ended;
  expect(lab.seen.find((line) => line.startsWith('BLOCK_JOB_COMPLETED'))).toContain('Source and target image have different sizes');
  expect(lab.door.node).toBe(lab.source);
});

test('one that completes unasked needs nobody', async () => {
  const lab = await MirrorLab.create();
  await lab.start({ autoComplete: true });
  await lab.job.ended;
  expect(lab.equal).toBe(true);
  expect(lab.door.node).toBe(lab.target);
});

test('what is drained can be drained again: the target first, then the source, while users wait for the target', async () => {
  const lab = await MirrorLab.create();
  await lab.start({ copyMode: 'write-blocking' });
  await lab.ready();
  const writers = Array.from({ length: 4 }, async (_, index) => {
    for (let round = 0; round < 50; round++) await lab.door.submit(makeRequest('write', index * 100, 64 * KiB, Buffer.alloc(64 * KiB, round + 1)));
  });
  for (let round = 0; round < 20; round++) {
    await lab.target.drained(() => lab.mirror.filter.drained(() => lab.turns(2)));
    await lab.turns(3);
  }
  await Promise.all(writers);
  await lab.complete();
  expect(lab.equal).toBe(true);
});
