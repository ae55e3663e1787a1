import { expect, test } from '@jest/globals';
import { deallocationParts } from '../../../src/block/deallocation.js';
import type { BlockLimits } from '../../../src/block/driver.js';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../../../src/block/request.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

/** A memory driver that remembers what reached it. */
class Watched extends MemoryDriver {
  readonly seen: string[] = [];

  override submit(request: BlockRequest): Promise<void> {
    this.seen.push(`${request.op} ${request.offset}+${request.bytes}`);
    return super.submit(request);
  }
}

function watched(limits: Partial<BlockLimits>): { driver: Watched; node: BlockNode } {
  const driver = new Watched({ bytes: 64 * 1024, limits });
  return { driver, node: new BlockNode({ name: 'watched', driver }) };
}

function parts(offset: number, bytes: number, unit: number, most: number): string[] {
  return [...deallocationParts(makeRequest('discard', offset, bytes, null), unit, most)]
    .map(({ part, whole }) => `${part.offset}+${part.bytes}${whole ? '' : ' rest'}`);
}

test.each([
  [0, 8192, 4096, Infinity, ['0+8192']],
  [0, 12288, 4096, 8192, ['0+8192', '8192+4096']],
  [0, 12288, 4096, 9000, ['0+8192', '8192+4096']],
  [0, 8192, 4096, 100, ['0+4096', '4096+4096']],
  [100, 8192, 4096, Infinity, ['100+3996 rest', '4096+4096', '8192+100 rest']],
  [100, 200, 4096, Infinity, ['100+200 rest']],
  [4000, 200, 4096, Infinity, ['4000+96 rest', '4096+104 rest']],
  [3, 10, 1, 4, ['3+4', '7+4', '11+2']],
])('%i+%i in units of %i, at most %d', (offset, bytes, unit, most, expected) => {
  expect(parts(offset, bytes, unit, most)).toEqual(expected);
});

test('zeros outside whole units are written, whole ones are cut to the most that goes at once', async () => {
  const { driver, node } = watched({ zeroAlignment: 4096, maxZeroes: 8192 });
  await node.write(0, new Uint8Array(65536).fill(1));
  driver.seen.length = 0;
  await node.writeZeroes(4000, 20_000);
  expect(driver.seen).toEqual(['write 4000+96', 'write-zeroes 4096+8192', 'write-zeroes 12288+8192', 'write 20480+3520']);
  const content = new Uint8Array(65536);
  await node.read(0, content);
  expect([...content.entries()].filter(([at, byte]) => (byte === 0) !== (at >= 4000 && at < 24_000))).toEqual([]);
});

test('a write-zeroes that must not fall back fails where a part would have to be written', async () => {
  const { node } = watched({ zeroAlignment: 4096 });
  await node.writeZeroes(4096, 8192, RequestFlag.NO_FALLBACK);
  await expect(node.writeZeroes(4000, 8192, RequestFlag.NO_FALLBACK)).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
});

test('a discard drops what is not a whole unit', async () => {
  const { driver, node } = watched({ discardAlignment: 4096, maxDiscard: 4096 });
  await node.discard(1, 12_287);
  await node.discard(1, 100);
  expect(driver.seen).toEqual(['discard 4096+4096', 'discard 8192+4096']);
});
