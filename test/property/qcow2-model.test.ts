import { describe, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockNode } from '../../src/block/node.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { ImageModel, KeptOpen, randomStep } from '../support/image-model.js';

const GEOMETRIES: readonly { clusterSize: number; refcountBits: number; version: 2 | 3 }[] = [
  { clusterSize: 512, refcountBits: 16, version: 3 },
  { clusterSize: 512, refcountBits: 16, version: 2 },
  { clusterSize: 1024, refcountBits: 8, version: 3 },
  { clusterSize: 4096, refcountBits: 4, version: 3 },
  { clusterSize: 4096, refcountBits: 64, version: 3 },
  { clusterSize: 16384, refcountBits: 32, version: 3 },
  { clusterSize: 65536, refcountBits: 16, version: 3 },
  { clusterSize: 65536, refcountBits: 16, version: 2 },
  { clusterSize: 2 * 1024 * 1024, refcountBits: 16, version: 3 },
];

async function runSeed(seed: number, geometry: (typeof GEOMETRIES)[number], lazyRefcounts = false): Promise<void> {
  const random = new Random(seed);
  const size = 512 * (random.below(2000) + 1);
  const log: string[] = [];
  const backingBytes = random.chance(0.4) ? new Uint8Array(random.below(size * 1.2) + 1) : null;
  let backing: BlockNode | null = null;
  if (backingBytes !== null) {
    random.fill(backingBytes);
    const driver = new MemoryDriver({ bytes: backingBytes.byteLength });
    backing = new BlockNode({ name: 'backing', driver: new KeptOpen(driver), pinned: true });
    await backing.write(0, backingBytes);
  }
  const tiny = random.chance(0.3);
  const model = await ImageModel.make(new MemoryDriver(), {
    size, ...geometry, lazyRefcounts, ...(backing === null ? {} : { backingFile: 'backing', backingFormat: 'raw' }),
  }, {
    openBacking: async () => backing, discard: random.chance(0.5) ? 'unmap' : 'ignore',
    ...(tiny ? { l2CacheSize: 1, refcountCacheSize: 1 } : {}),
  }, backingBytes);
  try {
    for (let step = 0; step < 40; step++) {
      log.push(await randomStep(model, random));
      if (step % 4 === 0) await model.verify();
    }
    await model.verify();
    await model.check();
    await model.reopen();
    await model.verify();
    await model.check();
    await model.node.close();
  } catch (error) {
    throw new Error(`seed ${seed} ${JSON.stringify(geometry)} size ${size} backing ${backingBytes?.byteLength} lazy ${lazyRefcounts} after:\n${log.join('\n')}`, { cause: error });
  }
}

describe('a qcow2 image behaves like a flat array', () => {
  for (const geometry of GEOMETRIES) {
    test(`with ${JSON.stringify(geometry)}`, async () => {
      const seeds = geometry.clusterSize > 65536 ? 3 : 8; // each copy-on-write moves whole clusters
      for (let seed = 1; seed <= seeds; seed++) await runSeed(seed, geometry);
      expect.assertions(0);
    });
  }

  test('with lazy refcounts', async () => {
    for (let seed = 100; seed < 112; seed++) await runSeed(seed, GEOMETRIES[3]!, true);
    expect.assertions(0);
  });
});
