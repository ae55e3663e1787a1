/** Seeded damage: what a careless program, a bad disk or an attacker would put into an image's tables. */
import type { Random } from '../../src/base/clock.js';
import type { FuzzBase, Region } from './bases.js';
import type { SparseImage } from './sparse-image.js';

export interface Damaged {
  readonly image: SparseImage;
  readonly log: readonly string[];
}

const HEADER_FIELDS: readonly (readonly [offset: number, bytes: 4 | 8])[] = [
  [4, 4], [8, 8], [16, 4], [20, 4], [24, 8], [32, 4], [36, 4], [40, 8], [48, 8], [56, 4], [60, 4], [64, 8],
  [72, 8], [80, 8], [88, 8], [96, 4], [100, 4], [104, 4],
];
const SNAPSHOT_FIELDS: readonly (readonly [offset: number, bytes: 4 | 8])[] = [
  [0, 8], [8, 4], [12, 4], [32, 4], [36, 4], [40, 8], [48, 8], [56, 8],
];
const BITMAP_FIELDS: readonly (readonly [offset: number, bytes: 1 | 2 | 4 | 8])[] = [
  [0, 8], [8, 4], [12, 4], [16, 1], [17, 1], [18, 2], [20, 4],
];
const BITMAP_EXTENSION_FIELDS: readonly (readonly [offset: number, bytes: 4 | 8])[] = [[4, 4], [8, 4], [12, 4], [16, 8], [24, 8]];
const FIELDS: Partial<Record<Region['kind'], readonly (readonly [offset: number, bytes: 1 | 2 | 4 | 8])[]>> = {
  header: HEADER_FIELDS, 'snapshot table': SNAPSHOT_FIELDS, 'bitmap extension': BITMAP_EXTENSION_FIELDS, 'bitmap directory': BITMAP_FIELDS,
};
const BOUNDARIES: readonly bigint[] = [
  0n, 1n, 7n, 8n, 0xffn, 0x1ffn, 0x200n, 0xffffn, 0x10000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 0x1_0000_0000n,
  2n ** 40n, 2n ** 52n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 55n, 2n ** 56n - 512n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n,
];
const FLAGS: readonly bigint[] = [0n, 0n, 1n, 2n ** 63n, 2n ** 63n, 2n ** 62n, 2n ** 63n + 1n, 2n ** 62n + 2n ** 63n];

export function damage(base: FuzzBase, random: Random): Damaged {
  const log: string[] = [];
  const image = base.image.copy();
  for (let count = random.pick([1, 1, 1, 2, 3, 8]); count > 0; count--) {
    if (random.chance(0.08)) {
      resize(image, base, random, log);
      continue;
    }
    const kinds = [...new Set(base.regions.map(({ kind }) => kind))];
    const kind = random.pick(kinds);
    const region = random.pick(base.regions.filter((candidate) => candidate.kind === kind));
    damageRegion(image, region, base, random, log);
  }
  return { image, log };
}

function resize(image: SparseImage, base: FuzzBase, random: Random, log: string[]): void {
  image.length = random.pick([
    random.below(image.length), random.below(200), base.clusterSize * random.below(image.length / base.clusterSize + 1),
    image.length + random.below(100_000),
  ]);
  log.push(`file cut or extended to ${image.length}`);
}

function damageRegion(image: SparseImage, region: Region, base: FuzzBase, random: Random, log: string[]): void {
  if (random.chance(0.15)) {
    for (let flips = 1 + random.below(4); flips > 0; flips--) flip(image, region, random, log);
    return;
  }
  const fields = FIELDS[region.kind] ?? null;
  const [within, width] = fields !== null ? random.pick(fields)
    : region.kind === 'extensions' ? [random.below(region.bytes / 4) * 4, 4] as const
    : [random.below(Math.max(1, Math.min(region.bytes, random.pick([64, region.bytes])) / 8)) * 8, 8] as const;
  const repeat = fields === null && random.chance(0.2) ? 1 + random.below(64) : 1;
  const value = fields === null && region.kind !== 'extensions' ? entryValue(base, random) : fieldValue(image, base, random);
  for (let i = 0; i < repeat; i++) put(image, region.offset + within + i * width, width, value);
  log.push(`${region.kind} at ${region.offset}: ${repeat} x ${width} bytes at ${within} are 0x${value.toString(16)}`);
}

function flip(image: SparseImage, region: Region, random: Random, log: string[]): void {
  const at = region.offset + random.below(region.bytes);
  const bit = random.below(8);
  if (at >= image.length) return;
  image.setByte(at, image.byte(at) ^ 2 ** bit);
  log.push(`${region.kind} at ${region.offset}: bit ${bit} of byte ${at - region.offset} flipped`);
}

/** A number for a field: a boundary, or something near what is there. */
function fieldValue(image: SparseImage, base: FuzzBase, random: Random): bigint {
  switch (random.below(5)) {
    case 0: return somePlace(base, random);
    case 1: return BigInt(image.length) + BigInt(random.below(3)) - 1n;
    case 2: return BigInt(random.below(100));
    default: return random.pick(BOUNDARIES);
  }
}

/** A table entry: some table of the image (loops, self-references), a boundary, or an unaligned place; with any flags. */
function entryValue(base: FuzzBase, random: Random): bigint {
  const flags = random.pick(FLAGS);
  switch (random.below(5)) {
    case 0: return random.pick(BOUNDARIES);
    case 1: return (somePlace(base, random) + BigInt(random.below(base.clusterSize))) | flags;
    case 2: return BigInt(random.below(2 ** 40)) * 512n | flags;
    default: return somePlace(base, random) | flags;
  }
}

function somePlace(base: FuzzBase, random: Random): bigint {
  if (random.chance(0.3)) return BigInt(random.below(base.image.length / base.clusterSize + 2)) * BigInt(base.clusterSize);
  return BigInt(random.pick(base.regions).offset);
}

function put(image: SparseImage, at: number, width: 1 | 2 | 4 | 8, value: bigint): void {
  for (let i = 0; i < width; i++) image.setByte(at + i, Number((value >> BigInt(8 * (width - 1 - i))) % 256n));
}
