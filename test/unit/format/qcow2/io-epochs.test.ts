import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../../src/block/node.js';
import type { BlockRequest } from '../../../../src/block/request.js';
import { createQcow2 } from '../../../../src/format/qcow2/create.js';
import { IoEpochs } from '../../../../src/format/qcow2/io-epochs.js';
import { openQcow2 } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';
import { KeptOpen } from '../../../support/image-model.js';

const CLUSTER = 4096;

/** Holds one write back until it is released. */
class HoldingDriver extends KeptOpen {
  holdNext = false;
  release: () => void = () => {};
  override async submit(request: BlockRequest): Promise<void> {
    if (this.holdNext && request.op === 'write') {
      this.holdNext = false;
      await new Promise<void>((resolve) => { this.release = resolve; });
    }
    return super.submit(request);
  }
}

test('a cluster is not given to others while a write that found it is under way', async () => {
  const storage = new HoldingDriver(new MemoryDriver());
  const file = new BlockNode({ name: 'image', driver: storage });
  await createQcow2(file, { size: 64 * CLUSTER, clusterSize: CLUSTER });
  const node = new BlockNode({ name: 'qcow2', driver: await openQcow2(file) });
  await node.write(0, new Uint8Array(CLUSTER).fill(1));
  await node.flush();
  storage.holdNext = true;
  const late = node.write(0, new Uint8Array(CLUSTER).fill(2)); // in place, and slow
  await node.discard(0, CLUSTER);
  const flushed = node.flush();
  const other = node.write(10 * CLUSTER, new Uint8Array(CLUSTER).fill(3));
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => { setImmediate(resolve); });
  storage.release();
  await Promise.all([late, flushed, other]);
  const actual = new Uint8Array(CLUSTER);
  await node.read(10 * CLUSTER, actual);
  expect(actual.every((byte) => byte === 3)).toBe(true);
  await node.read(0, actual);
  expect(actual.every((byte) => byte === 0)).toBe(true);
});

test('settling waits for what began before, not for what begins after', async () => {
  const epochs = new IoEpochs();
  const before = epochs.enter();
  let settled = false;
  const settling = epochs.settle().then(() => { settled = true; });
  const after = epochs.enter();
  await Promise.resolve();
  expect(settled).toBe(false);
  epochs.leave(before);
  await settling;
  expect(settled).toBe(true);
  const again = epochs.settle();
  epochs.leave(after);
  await again;
});
