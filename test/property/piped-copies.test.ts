/** Data that goes from image to image through a pipe is what it would be through memory, wherever the images have it. */
import { afterAll, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { PipePool } from '../../src/base/pipe-buffer.js';
import { BlockNode } from '../../src/block/node.js';
import { ThrottleFilter } from '../../src/filter/throttle.js';
import { createImage, openImage } from '../../src/image/open.js';
import { ThrottleGroup } from '../../src/block/throttle.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const SIZE = 3 * 1024 * KiB;
const pipes = new PipePool();
afterAll(() => pipes.close());

/** Writes, zeros and holes here and there; the model follows. */
async function scatter(node: BlockNode, model: Uint8Array, random: Random, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const offset = random.below(SIZE / 512) * 512;
    const bytes = Math.min(SIZE - offset, random.pick([512, 4096, 65_536, 300 * KiB]));
    if (random.below(5) === 0) {
      model.fill(0, offset, offset + bytes);
      await node.writeZeroes(offset, bytes);
    } else {
      random.fill(model.subarray(offset, offset + bytes));
      await node.write(offset, model.slice(offset, offset + bytes));
    }
  }
}

async function image(name: string, clusterSize: number, random: Random, model: Uint8Array): Promise<BlockNode> {
  await createImage(tmp(`${name}.base`), { format: 'qcow2', size: SIZE, clusterSize });
  await createImage(tmp(name), { format: 'qcow2', clusterSize, backingFile: tmp(`${name}.base`), backingFormat: 'qcow2' });
  await using base = await openImage(tmp(`${name}.base`), { format: 'qcow2' });
  await scatter(base, model, random, 12);
  await base.close();
  const node = await openImage(tmp(name), { format: 'qcow2', backing: 'allow' });
  await scatter(node, model, random, 12);
  return node;
}

async function copy(from: BlockNode, to: BlockNode, offset: number, bytes: number): Promise<boolean> {
  const buffer = new Uint8Array(bytes);
  const pipe = pipes.take(buffer)!;
  await from.read(offset, buffer, 'background', pipe);
  const { inKernel } = pipe;
  await to.write(offset, buffer, 0, 'background', pipe);
  pipes.give(pipe);
  return inKernel;
}

test.each([512, 4096, 65_536])('between images with clusters of %i bytes', async (clusterSize) => {
  const random = new Random(clusterSize);
  const models = [new Uint8Array(SIZE), new Uint8Array(SIZE)] as const;
  await using from = await image('from', clusterSize, random, models[0]);
  await using to = await image('to', clusterSize, random, models[1]);
  expect(Math.min(from.pipeBytes, to.pipeBytes)).toBeGreaterThan(0);
  let piped = 0;
  for (let i = 0; i < 150; i++) {
    const unit = random.pick([1, 512, clusterSize]);
    const offset = random.below(SIZE / unit) * unit;
    const bytes = Math.min(SIZE - offset, unit * (1 + random.below(Math.max(1, random.pick([8 * KiB, 256 * KiB]) / unit))));
    if (await copy(from, to, offset, bytes)) piped++;
    models[1].set(models[0].subarray(offset, offset + bytes), offset);
  }
  const found = new Uint8Array(SIZE);
  await to.read(0, found);
  expect(Buffer.compare(found, models[1])).toBe(0);
  await from.read(0, found);
  expect(Buffer.compare(found, models[0])).toBe(0);
  expect([piped > 10, piped < 150]).toEqual([true, true]);
});

test('who looks for zeros gets all of a file in memory', async () => {
  await createImage(tmp('raw'), { format: 'raw', size: SIZE });
  await using raw = await openImage(tmp('raw'), { format: 'raw' });
  await raw.write(0, new Uint8Array(SIZE).fill(7, 100, 200));
  const buffer = new Uint8Array(256 * KiB);
  const pipe = pipes.take(buffer)!;
  pipe.begin(buffer, 64 * KiB);
  await raw.read(0, buffer, 'background', pipe);
  expect([pipe.inKernel, buffer.indexOf(7), buffer.lastIndexOf(7)]).toEqual([false, 100, 199]);
  pipes.give(pipe);
});

test('a node that knows nothing of pipes, or looks at data, gets it in memory', async () => {
  const random = new Random(1);
  const models = [new Uint8Array(SIZE), new Uint8Array(SIZE)] as const;
  await using from = await image('from', 65_536, random, models[0]);
  await using to = await image('to', 65_536, random, models[1]);
  const throttled = new BlockNode({ name: 'throttle', driver: new ThrottleFilter({ child: to, group: new ThrottleGroup('group') }) });
  await copy(from, throttled, 0, 512 * KiB);
  to.detectZeroes = 'on';
  await copy(from, to, 1024 * KiB, 512 * KiB);
  to.detectZeroes = 'off';
  // it comes between while the request waits
  const draining = to.drained(async () => {
    to.detectZeroes = 'unmap';
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  });
  await Promise.all([draining, copy(from, to, 2048 * KiB, 512 * KiB)]);
  for (const offset of [0, 1024 * KiB, 2048 * KiB]) models[1].set(models[0].subarray(offset, offset + 512 * KiB), offset);
  const found = new Uint8Array(SIZE);
  await to.read(0, found);
  expect(Buffer.compare(found, models[1])).toBe(0);
});
