/** Mirrors by a bitmap: what they copy, which bits they clear and when, and that one which fails loses none. */
import { expect, test } from '@jest/globals';
import { addBitmap, findBitmap, makeRequest, removeBitmap } from '../../../../src/index.js';
import { RandomGuest } from '../../../support/job-lab.js';
import { KiB, MirrorLab } from '../../../support/mirror-lab.js';

const G = 4 * KiB;

async function write(lab: MirrorLab, granule: number, value: number): Promise<void> {
  await lab.door.submit(makeRequest('write', granule * G + 100, 10, Buffer.alloc(10, value)));
}

/** The dirty granules of the bitmap. */
function dirty(lab: MirrorLab): number[] {
  const bitmap = findBitmap(lab.source, 'b');
  return Array.from({ length: lab.source.length() / G }, (_, granule) => granule).filter((granule) => bitmap.get(granule * G));
}

async function prepared(): Promise<MirrorLab> {
  const lab = await MirrorLab.create({ bytes: 16 * G });
  await lab.target.write(0, lab.disks.source.content());
  await addBitmap(lab.source, { name: 'b', granularity: G });
  for (const granule of [2, 7]) await write(lab, granule, 1);
  return lab;
}

test('incremental clears it in the moment in which the disks are equal; what is written later is dirty', async () => {
  const lab = await prepared();
  lab.disks.target.log.length = 0;
  await lab.start({ sync: 'incremental', bitmap: 'b', granularity: G });
  await lab.ready();
  expect(lab.disks.target.log.filter(({ op }) => op === 'write').map(({ offset }) => offset).toSorted((a, b) => a - b)).toEqual([2 * G, 7 * G]);
  await write(lab, 9, 2);
  expect(dirty(lab)).toEqual([2, 7]); // its successor records
  lab.job.cancel(false);
  await lab.job.ended;
  expect(lab.equal).toBe(true);
  expect(dirty(lab)).toEqual([]);
  await write(lab, 11, 3);
  expect(dirty(lab)).toEqual([11]);
});

test('bitmap leaves it as it is, with what was written since', async () => {
  const lab = await prepared();
  await lab.start({ sync: 'bitmap', bitmap: 'b', granularity: G });
  await lab.ready();
  await write(lab, 9, 2);
  await lab.complete();
  expect(lab.equal).toBe(true);
  expect(dirty(lab)).toEqual([2, 7, 9]);
});

for (const [why, end] of [
  ['a target that fails', async (lab: MirrorLab) => {
    lab.disks.target.fault = () => { throw new Error('broken'); };
    await write(lab, 9, 2);
  }],
  ['a flush of the target that fails', async (lab: MirrorLab) => {
    lab.disks.target.fault = ({ op }) => { if (op === 'flush') throw new Error('broken'); };
    await write(lab, 9, 2);
    await lab.turns(50);
    lab.job.complete();
  }],
  ['a forced cancel', async (lab: MirrorLab) => {
    await write(lab, 9, 2);
    lab.job.cancel(true);
  }],
] as const) {
  test(`no bit is lost by ${why}`, async () => {
    const lab = await prepared();
    await lab.start({ sync: 'incremental', bitmap: 'b', granularity: G });
    await lab.ready();
    await end(lab);
    await lab.job.ended;
    expect(lab.job.error).not.toBe(null);
    expect(dirty(lab)).toEqual([2, 7, 9]);
    expect(findBitmap(lab.source, 'b')).toMatchObject({ busy: false, recording: true });
  });
}

test('nobody else changes or copies by it meanwhile; one that cannot be used makes no job', async () => {
  const lab = await prepared();
  await lab.start({ sync: 'incremental', bitmap: 'b', granularity: G });
  await expect(removeBitmap(lab.source, 'b')).rejects.toThrow('currently in use');
  lab.job.cancel(true);
  await lab.job.ended;
  await removeBitmap(lab.source, 'b');
  await expect(lab.start({ sync: 'incremental', bitmap: 'b' })).rejects.toThrow("Dirty bitmap 'b' not found");
  expect([...lab.source.parents].length).toBe(1);
});

test('a chain of them under a guest that never rests gives every instant', async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const lab = await prepared();
    const guest = new RandomGuest(lab.door, seed, { maxBytes: 3 * G, pauseTurns: 10 });
    for (let turn = 0; turn < 4; turn++) {
      lab.equal = null;
      await lab.start({ sync: 'incremental', bitmap: 'b', granularity: G, copyMode: seed % 2 === 0 ? 'write-blocking' : 'background' });
      await lab.turns(20);
      const cancelled = turn === 1 && !lab.job.isReady;
      if (cancelled) lab.job.cancel(true);
      else {
        // in the background it may never catch up
        for (let turns = 0; !lab.job.isReady; turns++) {
          await lab.turns(1);
          if (turns === 200) lab.mirror.setCopyMode('write-blocking');
        }
        lab.mirror.setCopyMode('write-blocking');
        lab.job.cancel(false);
      }
      await lab.job.ended;
      if (!cancelled) expect([seed, turn, lab.equal, lab.job.error]).toEqual([seed, turn, true, null]);
    }
    await guest.stop();
  }
}, 60_000);
