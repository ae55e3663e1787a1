import { expect, test } from '@jest/globals';
import { NO_LIMITS, type BlockDriver, type BlockStatus } from '../../../../src/block/driver.js';
import { BlockChild } from '../../../../src/block/child.js';
import { BlockNode } from '../../../../src/block/node.js';
import type { BlockRequest } from '../../../../src/block/request.js';
import { TableCache } from '../../../../src/format/qcow2/table-cache.js';

const TABLE = 512;

/** Tables of one repeated byte; a read takes what is there when it is submitted, and may be held back. */
class SlowFile implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly limits = NO_LIMITS;
  readonly growable = true;
  readonly bytes = new Map<number, number>();
  hold: Promise<void> | null = null;
  length() { return 64 * TABLE; }
  async submit({ op, offset, buffer }: BlockRequest): Promise<void> {
    if (op === 'write') this.bytes.set(offset, buffer![0]!);
    if (op !== 'read') return;
    const value = this.bytes.get(offset) ?? 0;
    if (this.hold !== null) await this.hold;
    buffer!.fill(value);
  }
  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> { return { kind: 'data', bytes, hostOffset: offset }; }
  async close() {}
}

function makeCache(capacity: number): { cache: TableCache; file: SlowFile } {
  const file = new SlowFile();
  return { file, cache: new TableCache(new BlockChild('file', 'file', new BlockNode({ name: 'file', driver: file })), TABLE, capacity, 'l2') };
}

test('an edit is written even where a reader had the table evicted before it was marked dirty', async () => {
  const { cache, file } = makeCache(2);
  cache.markDirty(await cache.insert(0, new Uint8Array(TABLE)));
  const edited = await cache.loadForEdit(TABLE);
  await cache.load(2 * TABLE); // the only clean table gives way
  expect(cache.peek(TABLE)).toBeUndefined();
  cache.markDirty(edited);
  edited.bytes.fill(7);
  await cache.writeBack();
  expect(file.bytes.get(TABLE)).toBe(7);
  expect(cache.hasDirty).toBe(false);
  expect(cache.size).toBeLessThanOrEqual(2);
});

test('a load that was under way at an invalidation never puts its old content into the cache', async () => {
  const { cache, file } = makeCache(4);
  file.bytes.set(0, 1);
  let release = (): void => {};
  file.hold = new Promise((resolve) => { release = resolve; });
  const old = cache.load(0);
  cache.invalidate(0, TABLE);
  file.bytes.set(0, 2);
  const newer = cache.load(0);
  release();
  expect((await old).bytes[0]).toBe(1);
  expect((await newer).bytes[0]).toBe(2);
  expect((await cache.load(0)).bytes[0]).toBe(2);
});

test('a loaded table is known to be the newest until something is edited, also where the cache has no room for it', async () => {
  const { cache } = makeCache(2);
  cache.markDirty(await cache.insert(0, new Uint8Array(TABLE)));
  cache.markDirty(await cache.insert(TABLE, new Uint8Array(TABLE)));
  const loaded = await cache.load(2 * TABLE);
  expect(cache.peek(2 * TABLE)).toBeUndefined();
  expect(cache.isNewest(loaded)).toBe(true);
  cache.markDirty(cache.peek(0)!);
  expect(cache.isNewest(loaded)).toBe(false);
});
