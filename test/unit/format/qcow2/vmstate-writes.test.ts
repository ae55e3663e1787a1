/**
 * What reaches the host while RAM state is saved: each chunk as one write, nothing read, nothing written twice. That is
 * what makes it fast, so it is held here, by trace, and not only seen in a benchmark.
 */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { openImage, createImage } from '../../../../src/image/open.js';
import type { BlockNode } from '../../../../src/block/node.js';
import type { TracedRequest } from '../../../../src/trace/sink.js';
import { IoLog } from '../../../support/io-log.js';
import { VmStateReader } from '../../../../src/vmstate/reader.js';
import { VmStateWriter } from '../../../../src/vmstate/writer.js';
import { randomBytes } from '../../../support/random-bytes.js';
import { useTmp } from '../../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const DISK = 4 * 1024 * MiB;
const CHUNKS = 40;

type HostIo = Pick<TracedRequest, 'op' | 'offset' | 'bytes'>;

/** What goes to the file's node, and why. */
class Recorder extends IoLog {
  get host(): HostIo[] { return this.of('D', 'file').map(({ request }) => request); }
  get causes(): string[] { return [...this.of('Q', 'metadata'), ...this.of('Q', 'data'), ...this.of('Q', 'file')].map(({ request }) => request.cause); }
  get tables(): number[] { return this.of('Q', 'file').filter(({ request }) => request.cause === 'l2-alloc').map(({ request }) => request.offset); }
  ops(op: HostIo['op']): HostIo[] { return this.host.filter((request) => request.op === op); }
}

let recorder: Recorder;
beforeEach(() => { recorder = new Recorder(); });

function forget(): void {
  recorder.events.length = 0;
}

/** An image in use: its refcount block is in memory. From here on only the file's node is traced. */
async function openTraced(clusterSize: number, cache: 'none' | 'writeback'): Promise<BlockNode> {
  await createImage(tmp('image.qcow2'), { format: 'qcow2', size: DISK, clusterSize });
  const node = await openImage(tmp('image.qcow2'), { cache, trace: recorder });
  await node.write(0, Buffer.alloc(512, 1));
  node.traceTo(null);
  forget();
  return node;
}

async function save(node: BlockNode, bytes: number, piece: number): Promise<Buffer> {
  const state = randomBytes(bytes, 3);
  const writer = new VmStateWriter(node.driver.vmState!);
  for (let at = 0; at < bytes; at += piece) await writer.write(state.subarray(at, at + piece));
  expect(await writer.finish()).toBe(bytes);
  return state;
}

describe.each([64 * KiB, MiB, 2 * MiB])('with clusters of %i bytes', (clusterSize) => {
  const chunk = Math.max(MiB, clusterSize);

  test.each(['none', 'writeback'] as const)('every chunk is one host write, and nothing is read (cache %s)', async (cache) => {
    const node = await openTraced(clusterSize, cache);
    await save(node, CHUNKS * chunk, 70_001);
    // a new L2 table of large clusters is as large as a chunk
    const isTable = (offset: number): boolean => recorder.tables.some((table) => Math.floor(offset / clusterSize) === Math.floor(table / clusterSize));
    const data = recorder.ops('write').filter(({ offset, bytes }) => bytes > 64 * KiB && !isTable(offset));
    expect(data.map(({ bytes }) => bytes)).toEqual(Array.from({ length: CHUNKS }, () => chunk));
    expect(recorder.ops('read')).toEqual([]);
    expect(recorder.causes.filter((cause) => cause === 'rmw' || cause === 'cow')).toEqual([]);
    await node.close();
  });

  test('the chunks lie in the file in the order of the state', async () => {
    const node = await openTraced(clusterSize, 'none');
    await save(node, CHUNKS * chunk, 70_001);
    await node.drained(() => node.driver.snapshots!.create({ name: 'one', vmStateSize: CHUNKS * chunk, dateSeconds: 1, dateNanoseconds: 0 }));
    forget();
    const reader = new VmStateReader(await node.driver.snapshots!.openVmState('1'), { chunkSize: chunk });
    while (await reader.next() !== null) { /* the trace is what counts */ }
    const data = recorder.ops('read').filter(({ bytes }) => bytes === chunk).map(({ offset }) => offset);
    const backwards = data.filter((offset, index) => index > 0 && offset < data[index - 1]!);
    expect(backwards).toEqual([]);
    expect(new Set(data).size).toBe(data.length);
    await reader.close();
    await node.close();
  });
});

test('only the last, partial chunk is padded, and still it costs no read-modify-write', async () => {
  const node = await openTraced(64 * KiB, 'none');
  const state = await save(node, 5 * MiB + 12_345, 33_333);
  expect(recorder.ops('read')).toEqual([]);
  expect(recorder.causes).not.toContain('rmw');
  expect(recorder.ops('write').filter(({ bytes }) => bytes >= 64 * KiB).map(({ bytes }) => bytes).toSorted((a, b) => b - a))
    .toEqual([MiB, MiB, MiB, MiB, MiB, 64 * KiB, 64 * KiB]); // the last two: the rest of the state, and its L2 table
  const back = Buffer.alloc(state.byteLength);
  await node.driver.vmState!.load(0, back);
  expect(back.equals(state)).toBe(true);
  await node.close();
});

test('fed piece by piece instead, the same state costs read-modify-writes: what the chunks are for', async () => {
  const node = await openTraced(64 * KiB, 'none');
  const state = randomBytes(200_000, 5);
  for (let at = 0; at < state.byteLength; at += 4104) await node.driver.vmState!.save(at, state.subarray(at, at + 4104));
  expect(recorder.causes.filter((cause) => cause === 'rmw').length).toBeGreaterThan(20);
  await node.close();
});

test('making the snapshot writes tables only', async () => {
  const node = await openTraced(64 * KiB, 'none');
  await save(node, CHUNKS * MiB, MiB);
  forget();
  await node.drained(() => node.driver.snapshots!.create({ name: 'one', vmStateSize: CHUNKS * MiB, dateSeconds: 1, dateNanoseconds: 0 }));
  expect(recorder.host.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThan(2 * MiB);
  await node.close();
});
