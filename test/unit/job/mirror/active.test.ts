/** Synchronous writes of a mirror, one by one: what goes to the target, what stays dirty, who waits for whom. */
import { expect, test } from '@jest/globals';
import { makeRequest, RequestFlag, type BlockRequest } from '../../../../src/index.js';
import { BlockError } from '../../../../src/base/errors.js';
import { gate, KiB, MirrorLab } from '../../../support/mirror-lab.js';

const G = 64 * KiB;

async function activeLab(options: Parameters<typeof MirrorLab.create>[0] = {}): Promise<MirrorLab> {
  const lab = await MirrorLab.create(options);
  await lab.start({ copyMode: 'write-blocking', granularity: G });
  await lab.ready();
  lab.disks.target.log.length = 0;
  return lab;
}

function writes(log: readonly BlockRequest[]): string[] {
  return log.filter(({ op }) => op !== 'flush' && op !== 'read').map(({ op, offset, bytes }) => `${op} ${offset} ${bytes}`);
}

test('a write goes to the source, then to the target, then it is answered; the guest may change its buffer meanwhile (J-4)', async () => {
  const lab = await activeLab();
  const order: string[] = [];
  lab.disks.source.before = ({ op }) => void order.push(`source ${op}`);
  lab.disks.target.before = ({ op }) => void order.push(`target ${op}`);
  const data = Buffer.alloc(1000, 1);
  const writing = lab.door.submit(makeRequest('write', 100, 1000, data)).then(() => order.push('answered'));
  data.fill(2);
  await writing;
  expect(order).toEqual(['source write', 'target write', 'answered']);
  expect(lab.disks.source.content().subarray(100, 1100).every((byte) => byte === 1)).toBe(true);
  expect(lab.mirror.figures()).toMatchObject({ dirty: 0, activelySynced: true });
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a failed source write fails for the guest, and is not taken to the target; what came of it is copied later', async () => {
  const lab = await activeLab();
  lab.disks.source.fault = ({ op }) => { if (op === 'write') throw new BlockError('IO', 'broken', { errno: 'EIO' }); };
  await expect(lab.door.submit(makeRequest('write', 0, 512, Buffer.alloc(512, 1)))).rejects.toThrow('broken');
  expect(writes(lab.disks.target.log)).toEqual([]);
  expect(lab.mirror.figures().activelySynced).toBe(false);
  lab.disks.source.fault = null;
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a failed target write is a success for the guest; the range, granules aligned out, is copied later (J-6)', async () => {
  const lab = await MirrorLab.create();
  await lab.start({ copyMode: 'write-blocking', granularity: G, onTargetError: 'ignore' });
  await lab.ready();
  let fail = 1;
  lab.disks.target.fault = ({ op }) => { if (op === 'write' && fail-- > 0) throw new BlockError('IO', 'broken', { errno: 'EIO' }); };
  await lab.door.submit(makeRequest('write', G - 100, 200, Buffer.alloc(200, 9)));
  expect(lab.mirror.figures()).toMatchObject({ dirty: 2 * G, activelySynced: false });
  expect(lab.seen).toContain('BLOCK_JOB_ERROR {"device":"j","operation":"write","action":"ignore"}');
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a part of a dirty granule does not make it clean, whole granules are (J-6)', async () => {
  const lab = await MirrorLab.create({ bytes: 4 * G });
  await lab.start({ copyMode: 'write-blocking', granularity: G });
  await lab.ready();
  lab.mirror.setCopyMode('background');
  lab.mirror.blockJob.job.pause(); // so that nothing is copied behind our back
  await lab.turns(10);
  await lab.door.submit(makeRequest('write', 0, 4 * G, Buffer.alloc(4 * G, 3)));
  expect(lab.mirror.figures().dirty).toBe(4 * G);
  lab.mirror.setCopyMode('write-blocking');
  lab.disks.target.log.length = 0;
  await lab.door.submit(makeRequest('write', G / 2, 2 * G, Buffer.alloc(2 * G, 4)));
  // half of the first granule and half of the third stay dirty; the second is equal now
  expect(writes(lab.disks.target.log)).toEqual([`write ${G} ${G}`]);
  expect(lab.mirror.figures().dirty).toBe(3 * G);
  await lab.door.submit(makeRequest('write', G + 5, 10, Buffer.alloc(10, 5)));
  expect(writes(lab.disks.target.log).at(-1)).toBe(`write ${G + 5} 10`);
  expect(lab.mirror.figures().dirty).toBe(3 * G);
  lab.mirror.blockJob.job.resume();
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('zeroes go as zeroes, discards as what the source makes of them (J-6)', async () => {
  const lab = await activeLab({ bytes: 4 * G });
  await lab.door.submit(makeRequest('write-zeroes', 100, G, null, RequestFlag.MAY_UNMAP));
  await lab.door.submit(makeRequest('discard', 2 * G, 2 * G, null));
  expect(writes(lab.disks.target.log)).toEqual([`write-zeroes 100 ${G}`, `write-zeroes ${2 * G} ${2 * G}`]);
  expect(lab.mirror.figures().dirty).toBe(0);
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a write waits for a copy of older data of its range, as a whole (J-5)', async () => {
  const lab = await MirrorLab.create({ bytes: 4 * G, turns: 0 });
  const held = gate();
  let background = 0;
  lab.disks.target.before = async ({ op, ioClass }) => {
    if (op === 'write' && ioClass === 'background' && background++ === 0) await held.opened;
  };
  await lab.start({ copyMode: 'write-blocking', granularity: G });
  while (background === 0) await lab.turns(1);
  const before = lab.disks.source.log.filter(({ op }) => op === 'write').length;
  let answered = false;
  const writing = lab.door.submit(makeRequest('write', G - 10, 20, Buffer.alloc(20, 8))).then(() => { answered = true; });
  await lab.turns(20);
  expect(answered).toBe(false);
  expect(lab.disks.source.log.filter(({ op }) => op === 'write').length).toBe(before); // not even begun
  held.open();
  await writing;
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('zeroes and discards of a part of a dirty granule leave it dirty; failed, they are copied later (J-6)', async () => {
  for (const op of ['write-zeroes', 'discard'] as const) {
    const lab = await MirrorLab.create({ bytes: 4 * G, turns: 0 });
    await lab.start({ copyMode: 'write-blocking', granularity: G, onTargetError: 'ignore' });
    await lab.ready();
    let fail = 1;
    lab.disks.target.fault = (request) => { if (request.op !== 'read' && request.op !== 'flush' && fail-- > 0) throw new BlockError('IO', 'broken', { errno: 'EIO' }); };
    lab.mirror.blockJob.job.pause(); // so that nothing is copied behind our back
    await lab.turns(10);
    // the disk discards nothing smaller than a granule
    await lab.door.submit(op === 'discard' ? makeRequest(op, 0, 2 * G, null) : makeRequest(op, G - 512, 1024, null));
    expect(lab.mirror.figures()).toMatchObject({ dirty: 2 * G, activelySynced: false });
    lab.disks.target.log.length = 0;
    await lab.door.submit(makeRequest(op, G / 2, 2 * G, null));
    // half of the first granule stays dirty, all of the second is equal now, and the third was clean
    expect(writes(lab.disks.target.log)).toEqual([`write-zeroes ${G} ${op === 'discard' ? G : 1.5 * G}`]);
    expect(lab.mirror.figures().dirty).toBe(op === 'discard' ? 2 * G : G);
    lab.mirror.blockJob.job.resume();
    await lab.complete();
    expect(lab.equal).toBe(true);
  }
});

test('what waits for a slow target in memory is what guests have under way, beside the buffers (J-9)', async () => {
  const lab = await MirrorLab.create({ bytes: 64 * G, turns: 0, discard: 'ignore' });
  const held = gate();
  lab.disks.target.before = () => held.opened;
  await lab.start({ copyMode: 'write-blocking', granularity: G, bufSize: 4 * G });
  await lab.turns(20);
  const guests = 8;
  let answered = 0;
  const writing = Array.from({ length: guests }, async (_, index) => {
    for (let round = 0; round < 5; round++) {
      await lab.door.submit(makeRequest('write', (32 + index) * G, G, Buffer.alloc(G, round)));
      answered++;
    }
  });
  await lab.turns(50);
  expect(answered).toBe(0);
  expect(lab.disks.target.bytesInFlight).toBe((4 + guests) * G);
  held.open();
  await Promise.all(writing);
  await lab.complete();
  expect(lab.disks.target.mostBytesInFlight).toBeLessThanOrEqual((4 + guests) * G);
  expect(lab.equal).toBe(true);
});

test('many overlapping unaligned writers never wait for each other in a circle (J-8)', async () => {
  const lab = await activeLab({ bytes: 4 * G, turns: 3 });
  const writers = [[10, 2 * G], [G + 10, 2 * G], [2 * G + 10, G], [G / 2, 3 * G]].map(async ([offset, bytes], index) => {
    for (let round = 0; round < 40; round++) await lab.door.submit(makeRequest('write', offset!, bytes!, Buffer.alloc(bytes!, index + round)));
  });
  await Promise.all(writers);
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a guest that writes the same granule for ever does not keep the copy from the others (J-7)', async () => {
  const lab = await MirrorLab.create({ bytes: 64 * G, turns: 3 });
  let stop = false;
  const writer = async (seed: number): Promise<void> => {
    while (!stop) await lab.door.submit(makeRequest('write', seed * 10, 4 * KiB, Buffer.alloc(4 * KiB, seed)));
  };
  const writers = [writer(1), writer(2), writer(3), writer(4)];
  await lab.start({ copyMode: 'write-blocking', granularity: G });
  await lab.complete();
  stop = true;
  await Promise.all(writers);
  expect(lab.equal).toBe(true);
});

test('guests that wait for the target can be let go: what they wrote is copied when the target answers again', async () => {
  const lab = await activeLab({ bytes: 4 * G });
  const held = gate();
  lab.disks.target.before = async ({ op }) => { if (op === 'write') await held.opened; };
  const first = lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 1)));
  await lab.turns(10);
  const second = lab.door.submit(makeRequest('write', 50, 100, Buffer.alloc(100, 2))); // waits for the first
  await lab.turns(10);
  expect(lab.mirror.figures().targetSilentMs).toBeGreaterThan(0);
  lab.mirror.setCopyMode('background');
  lab.mirror.letGuestsGo();
  await Promise.all([first, second]);
  const third = lab.door.submit(makeRequest('write', 60, 100, Buffer.alloc(100, 3)));
  await third;
  expect(lab.mirror.figures().dirty).toBeGreaterThan(0);
  held.open();
  lab.disks.target.before = null;
  lab.mirror.setCopyMode('write-blocking');
  await lab.complete();
  expect(lab.equal).toBe(true);
});

test('a switch takes hold of the next request; those past the decision still count as what they were (J-10)', async () => {
  const lab = await activeLab({ bytes: 4 * G });
  lab.mirror.setCopyMode('background');
  const held = gate();
  lab.disks.source.before = async ({ op }) => { if (op === 'write') await held.opened; };
  const late = lab.door.submit(makeRequest('write', 0, 100, Buffer.alloc(100, 1)));
  await lab.turns(5);
  lab.mirror.setCopyMode('write-blocking');
  await new Promise((resolve) => { setTimeout(resolve, 150); });
  expect(lab.mirror.figures().activelySynced).toBe(true);
  held.open();
  await late;
  expect(lab.mirror.figures()).toMatchObject({ activelySynced: false, dirty: G });
  await lab.complete();
  expect(lab.equal).toBe(true);
});

/** The source has taken the first write when this resolves, but answers it only when it may. */
function holdFirstAnswer(lab: MirrorLab): { readonly taken: Promise<void>; answer(): void } {
  const { source } = lab.disks;
  const [taken, held] = [gate(), gate()];
  const submit = source.submit.bind(source);
  let first = true;
  source.submit = async (request) => {
    const hold = first && request.op === 'write';
    if (hold) first = false;
    await submit(request);
    if (!hold) return;
    taken.open();
    await held.opened;
  };
  return { taken: taken.opened, answer: () => held.open() };
}

test.each([['background', 'write-blocking'], ['write-blocking', 'background']] as const)(
  'of two writes of one range at once, on both sides of a switch from %s to %s, both disks keep the same (J-10)', async (one, other) => {
    const lab = await activeLab({ turns: 0 });
    lab.mirror.setCopyMode(one);
    const held = holdFirstAnswer(lab);
    const first = lab.door.submit(makeRequest('write', 0, 2 * G, Buffer.alloc(2 * G, 1)));
    await held.taken;
    lab.mirror.setCopyMode(other);
    const second = lab.door.submit(makeRequest('write', 0, 2 * G, Buffer.alloc(2 * G, 2)));
    await lab.turns(20);
    held.answer();
    await Promise.all([first, second]);
    await lab.complete();
    expect(lab.equal).toBe(true);
  });

test('a mirror does not end while a write that was let go is on its way to the target: it would arrive there later (J-2)', async () => {
  const lab = await activeLab({ turns: 0 });
  const held = gate();
  lab.disks.target.before = ({ op }) => (op === 'write' ? held.opened : undefined);
  const writing = lab.door.submit(makeRequest('write', 0, G, Buffer.alloc(G, 3)));
  while (lab.disks.target.inFlight === 0) await lab.turns(1);
  lab.mirror.setCopyMode('background');
  await writing;
  lab.job.complete();
  await new Promise((resolve) => { setTimeout(resolve, 200); });
  expect(lab.job.ran).toBe(false);
  held.open();
  await lab.job.ended;
  expect(lab.equal).toBe(true);
});
