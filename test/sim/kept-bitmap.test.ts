/**
 * Power cuts while a job stores its bitmap in a running image, again and again: the image has the last one that was
 * stored or the one on its way, as in use, and is no worse than leaky.
 */
import { expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { DirtyBitmap } from '../../src/block/dirty-bitmap.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { readReferences } from '../support/qcow2-references.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes } from '../support/storage.js';

const KiB = 1024;
const SIZE = 4096 * KiB;
const NAME = 'quiesce-job-1';

async function makeImage(random: Random): Promise<Uint8Array> {
  const storage = new MemoryDriver();
  const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  await createQcow2(file, { size: SIZE, clusterSize: 2 ** (9 + random.below(4)) });
  const image = new BlockNode({ name: 'image', driver: await openQcow2(file) });
  // one of a user's, beside it
  image.bitmaps.add(new DirtyBitmap({ name: 'users', granularity: 64 * KiB, size: SIZE, persistent: true }));
  await image.write(0, Buffer.alloc(64 * KiB, 1));
  await image.close();
  return fileBytes(storage);
}

function bitsOf(seed: number): DirtyBitmap {
  const random = new Random(seed);
  const bitmap = new DirtyBitmap({ name: NAME, granularity: 512, size: SIZE });
  for (let left = random.below(30); left > 0; left--) bitmap.set(random.below(SIZE), 1 + random.below(SIZE / 8));
  return bitmap;
}

interface Life {
  readonly steps: number;
  readonly cut: boolean;
  /** How many bitmaps were stored, and whether the last thing asked for was to remove them. */
  readonly stored: number;
  readonly removing: boolean;
  readonly left: Uint8Array;
}

async function live(content: Uint8Array, seed: number, cutAfter: number): Promise<Life> {
  const random = new Random(seed);
  const disk = new SimDisk({ random, content, cutAfter });
  let stored = 0;
  let removing = false;
  const run = async (): Promise<void> => {
    const image = new BlockNode({ name: 'image', driver: await openQcow2(new BlockNode({ name: 'image', driver: disk })) });
    const store = image.driver.bitmapStore!;
    for (let count = 4; count > 0; count--) {
      await Promise.all([
        store.keep(bitsOf(seed + stored + 1)),
        image.write(random.below(SIZE - 64 * KiB), Buffer.alloc(1 + random.below(64 * KiB), count)),
      ]);
      stored++;
      if (random.chance(0.3)) await image.flush();
    }
    removing = true;
    if (random.chance(0.5)) await store.remove(NAME);
    else removing = false;
    await image.close();
  };
  const ended = await Promise.race([run(), disk.powerCut.then(() => 'cut')]);
  disk.kill();
  return { steps: disk.steps, cut: ended === 'cut', stored, removing, left: ended === 'cut' ? disk.survivors(random) : disk.content() };
}

async function check(life: Life, seed: number, when: string): Promise<void> {
  expect([when, readReferences(life.left).problems]).toEqual([when, []]);
  const image = new BlockNode({ name: 'image', driver: await openQcow2(new BlockNode({ name: 'image', driver: new SimDisk({ random: new Random(1), content: life.left }) })) });
  const shown = image.bitmaps.get(NAME);
  if (shown !== undefined) expect([when, shown.inconsistent]).toEqual([when, true]);
  const kept = await image.driver.bitmapStore!.readKept(NAME);
  const found = kept === null ? 0 : [life.stored, life.stored + 1].find((number) => bitsOf(seed + number).sha256() === kept.sha256());
  const allowed = life.removing ? [0, life.stored] : [...life.stored === 0 ? [0] : [], life.stored, life.stored + 1];
  expect([when, allowed]).toEqual([when, expect.arrayContaining([found])]);
  expect([when, image.bitmaps.get(NAME)]).toEqual([when, undefined]);
}

test('a power cut leaves the bitmap that was stored, or the next one', async () => {
  let cuts = 0;
  for (let seed = 100; seed <= 140 * 100; seed += 500) {
    const content = await makeImage(new Random(seed));
    const whole = await live(content, seed, Infinity);
    expect([seed, whole.cut]).toEqual([seed, false]);
    await check(whole, seed, `seed ${seed}, whole`);
    const steps = new Random(seed + 1).below(whole.steps);
    const cut = await live(content, seed, steps);
    if (cut.cut) cuts++;
    await check(cut, seed, `seed ${seed}, cut after step ${steps}`);
  }
  expect(cuts).toBeGreaterThan(10);
}, 120_000);
