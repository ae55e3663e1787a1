/** Sound images to damage, and where their tables lie. */
import { Random } from '../../src/base/clock.js';
import { addBitmap } from '../../src/block/bitmap-verbs.js';
import { BlockNode } from '../../src/block/node.js';
import { EXTENSION_BITMAPS } from '../../src/format/qcow2/header.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { Qcow2CreateOptions } from '../../src/format/qcow2/options.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { SparseImage } from './sparse-image.js';

export interface Region {
  readonly kind: 'header' | 'extensions' | 'l1' | 'l2' | 'refcount table' | 'refcount block' | 'snapshot table' | 'bitmap extension' | 'bitmap directory' | 'bitmap table' | 'bitmap';
  readonly offset: number;
  readonly bytes: number;
}

export interface FuzzBase {
  readonly image: SparseImage;
  readonly clusterSize: number;
  readonly regions: readonly Region[];
}

/** `crashed`: never closed, so that the dirty bit of lazy refcounts demands a repair. `bitmaps`: granularities of persistent bitmaps. */
const SHAPES: readonly (Qcow2CreateOptions & { readonly crashed?: boolean; readonly bitmaps?: readonly number[] })[] = [
  { size: 9_000_448, clusterSize: 512, bitmaps: [512, 512, 65536] },
  { size: 400 * 2 ** 30, clusterSize: 65536, bitmaps: [512, 65536, 2 ** 31] },
  { size: 300_032, clusterSize: 512 },
  { size: 300_032, clusterSize: 512, refcountBits: 1 },
  { size: 262_144, clusterSize: 1024, version: 2 },
  { size: 1_000_448, clusterSize: 4096, refcountBits: 64, lazyRefcounts: true },
  { size: 300_032, clusterSize: 1024, refcountBits: 4, lazyRefcounts: true, crashed: true },
  { size: 3_000_320, clusterSize: 65536, backingFile: 'backing', backingFormat: 'raw' },
  { size: 8 * 2 ** 40, clusterSize: 65536, refcountBits: 8 },
  { size: 5_000_192, clusterSize: 2 * 1024 * 1024 },
];

/** One after the other: the whole images take memory, and the process that runs the cases has little. */
export async function makeBases(): Promise<FuzzBase[]> {
  const bases: FuzzBase[] = [];
  for (const shape of SHAPES) bases.push(await makeBase(shape));
  return bases;
}

async function makeBase(create: (typeof SHAPES)[number]): Promise<FuzzBase> {
  const storage = new MemoryDriver();
  const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  await createQcow2(file, create);
  const driver = await openQcow2(file);
  const node = new BlockNode({ name: 'qcow2', driver });
  const random = new Random(create.size);
  const data = new Uint8Array(20_000);
  random.fill(data);
  for (const [index, granularity] of (create.bitmaps ?? []).entries()) await addBitmap(node, { name: `b${index}`, granularity, persistent: true });
  for (const at of [0, 50_000, 100_000, create.size - 20_000]) await node.write(at, data);
  await node.writeZeroes(30_000, 10_000);
  for (const name of create.refcountBits === 1 ? [] : ['one', 'two']) {
    await driver.vmState!.save(0, data);
    await driver.snapshots.create({ name, vmStateSize: data.byteLength, dateSeconds: 1, dateNanoseconds: 2 });
    await node.write(70_000, data.subarray(0, 9000));
  }
  await (create.crashed === true ? node.flush() : node.close());
  const image = await SparseImage.of(storage);
  return { image, clusterSize: create.clusterSize!, regions: findRegions(image, create.clusterSize!) };
}

const MAX_ENTRIES = 64; // none of these images uses more of a table

function findRegions(image: SparseImage, clusterSize: number): Region[] {
  const place = (at: number): number => Number(image.number(at, 8) % 2n ** 56n / 512n) * 512;
  const u32 = (at: number): number => Number(image.number(at, 4));
  const headerBytes = u32(4) === 2 ? 72 : 112;
  const regions: Region[] = [
    { kind: 'header', offset: 0, bytes: headerBytes },
    { kind: 'extensions', offset: headerBytes, bytes: Math.min(400, clusterSize - headerBytes) },
  ];
  const addTables = (kind: Region['kind'], table: number, entries: number): void => {
    for (let i = 0; i < Math.min(entries, MAX_ENTRIES); i++) {
      const offset = place(table + i * 8);
      if (offset !== 0) regions.push({ kind, offset, bytes: clusterSize });
    }
  };
  regions.push({ kind: 'l1', offset: place(40), bytes: u32(36) * 8 }, { kind: 'refcount table', offset: place(48), bytes: clusterSize });
  addTables('l2', place(40), u32(36));
  addTables('refcount block', place(48), clusterSize / 8);
  regions.push(...bitmapRegions(image, clusterSize));
  if (u32(60) === 0) return regions;
  const snapshots = place(64);
  regions.push({ kind: 'snapshot table', offset: snapshots, bytes: 160 }, { kind: 'l1', offset: place(snapshots), bytes: u32(snapshots + 8) * 8 });
  addTables('l2', place(snapshots), u32(snapshots + 8));
  return regions;
}

function bitmapRegions(image: SparseImage, clusterSize: number): Region[] {
  const u32 = (at: number): number => Number(image.number(at, 4));
  const u64 = (at: number): number => Number(image.number(at, 8));
  let at = u32(4) === 2 ? 0 : u32(100);
  while (at > 0 && u32(at) !== EXTENSION_BITMAPS && u32(at) !== 0) at += 8 + Math.ceil(u32(at + 4) / 8) * 8;
  if (u32(at) !== EXTENSION_BITMAPS) return [];
  const [bytes, directory] = [u64(at + 16), u64(at + 24)];
  const regions: Region[] = [{ kind: 'bitmap extension', offset: at, bytes: 32 }];
  for (let entry = directory; entry < directory + bytes; entry += 24 + Math.ceil(Number(image.number(entry + 18, 2)) / 8) * 8) {
    const table = u64(entry);
    regions.push({ kind: 'bitmap directory', offset: entry, bytes: 32 }, { kind: 'bitmap table', offset: table, bytes: u32(entry + 8) * 8 });
    for (let i = 0; i < Math.min(u32(entry + 8), MAX_ENTRIES); i++) {
      const data = u64(table + i * 8);
      if (data > 1) regions.push({ kind: 'bitmap', offset: data, bytes: clusterSize });
    }
  }
  return regions;
}
