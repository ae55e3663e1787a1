/** The path without alignment, chunks and pool: the same engine, fed piece by piece as a machine's stream produces them. */
import { openImage, type BlockNode, type CacheModeName } from '../../src/index.js';

/** What QEMU's stream is made of: page headers, pages, and now and then a full buffer of small device state. */
const PIECES = [...Array.from({ length: 24 }, () => [8, 4096]).flat(), 93, 32768, 17];
const LARGEST = Math.max(...PIECES);
const data = Buffer.alloc(LARGEST, 0x5a);

/** Saves and loads `bytes` of a state one piece after the other; seconds of each. */
export async function timedNaive(image: string, cache: CacheModeName, bytes: number): Promise<{ save: number; load: number }> {
  await using node = await openImage(image, { cache });
  const started = performance.now();
  const end = await saveNaively(node, bytes);
  const saved = performance.now();
  await node.drained(() => node.driver.snapshots!.create({ name: 'naive', vmStateSize: end, dateSeconds: 1, dateNanoseconds: 0 }));
  const source = await node.driver.snapshots!.openVmState('1');
  const loading = performance.now();
  await piecewise(bytes, (position, piece) => source.load(position, data.subarray(0, piece)));
  return { save: (saved - started) / 1000, load: (performance.now() - loading) / 1000 };
}

/** Returns where the state ends. */
export async function saveNaively(node: BlockNode, bytes: number): Promise<number> {
  const area = node.driver.vmState!;
  const end = await piecewise(bytes, (position, piece) => area.save(position, data.subarray(0, piece)));
  await node.flush();
  return end;
}

async function piecewise(bytes: number, work: (position: number, piece: number) => Promise<unknown>): Promise<number> {
  let position = 0;
  for (let index = 0; position < bytes; index++) {
    const piece = PIECES[index % PIECES.length]!;
    await work(position, piece);
    position += piece;
  }
  return position;
}
