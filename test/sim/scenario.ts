/** What a seed means: geometry, options and sizes of the simulated image. */
import type { Random } from '../../src/base/clock.js';
import type { Qcow2CreateOptions, Qcow2OpenOptions } from '../../src/format/qcow2/options.js';

export interface Scenario {
  readonly create: Qcow2CreateOptions;
  readonly open: Qcow2OpenOptions;
  /** Content of the raw backing file, or null. */
  readonly backing: Uint8Array | null;
  readonly alignment: 1 | 512;
  /** Guest requests in flight at once. */
  readonly depth: number;
  readonly maxState: number;
  /** Power cuts, one after the other, on the same image. */
  readonly rounds: number;
  /** The guest keeps persistent bitmaps, which forbid to go back to a snapshot. */
  readonly bitmaps: boolean;
}

type Shape = Pick<Qcow2CreateOptions, 'clusterSize' | 'refcountBits' | 'version'>;

/** Small clusters most of the time: they make many tables, and cost little. */
const SHAPES: readonly Shape[] = [
  { clusterSize: 512, refcountBits: 16, version: 3 },
  { clusterSize: 512, refcountBits: 16, version: 2 },
  { clusterSize: 512, refcountBits: 64, version: 3 },
  { clusterSize: 512, refcountBits: 32, version: 3 },
  { clusterSize: 512, refcountBits: 2, version: 3 },
  { clusterSize: 512, refcountBits: 1, version: 3 },
  { clusterSize: 1024, refcountBits: 8, version: 3 },
  { clusterSize: 1024, refcountBits: 64, version: 3 },
  { clusterSize: 2048, refcountBits: 16, version: 2 },
  { clusterSize: 4096, refcountBits: 16, version: 3 },
  { clusterSize: 4096, refcountBits: 4, version: 3 },
  { clusterSize: 65536, refcountBits: 16, version: 3 },
];

export function makeScenario(random: Random): Scenario {
  const shape = random.pick(SHAPES);
  const clusterSize = shape.clusterSize!;
  const sectors = clusterSize >= 65536 ? 1200 : 64 + random.below(random.chance(0.2) ? 1500 : 400);
  const size = sectors * 512;
  const backing = random.chance(0.35) ? new Uint8Array(1 + random.below(size * 1.3)) : null;
  if (backing !== null) random.fill(backing);
  const tiny = random.chance(0.5);
  return {
    create: {
      ...shape, size, lazyRefcounts: shape.version === 3 && random.chance(0.25),
      ...(backing === null ? {} : { backingFile: 'backing.raw', backingFormat: 'raw' }),
    },
    open: {
      discard: random.chance(0.5) ? 'unmap' : 'ignore',
      ...(tiny ? { l2CacheSize: 1, refcountCacheSize: 1 } : {}),
    },
    backing,
    alignment: random.chance(0.5) ? 1 : 512,
    depth: random.pick([1, 2, 4, 8, 16]),
    maxState: Math.min(40 * clusterSize, 200_000) * (random.chance(0.1) ? 4 : 1),
    rounds: random.pick([1, 1, 2, 3]),
    bitmaps: shape.version === 3 && random.chance(0.35),
  };
}
