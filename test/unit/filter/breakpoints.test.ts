/** Breakpoints of blkdebug: who stops, who does not, and how they go on. */
import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../src/block/node.js';
import { BlkdebugDriver } from '../../../src/filter/blkdebug.js';
import { isSuspended, removeBreakpoint, resumeRequest, setBreakpoint, whenSuspended } from '../../../src/filter/breakpoints.js';
import { createQcow2 } from '../../../src/format/qcow2/create.js';
import { openQcow2 } from '../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

async function image(): Promise<BlockNode> {
  const driver = new MemoryDriver();
  const file = new BlockNode({ name: 'file', driver });
  await createQcow2(file, { size: 1024 * 1024, clusterSize: 4096 });
  const debug = new BlockNode({ name: 'blkdebug', driver: new BlkdebugDriver({ image: file }) });
  return new BlockNode({ name: 'disk', driver: await openQcow2(debug) });
}

/** What has ended, in order. */
function log(): { readonly ended: string[]; readonly run: (name: string, work: Promise<unknown>) => Promise<void> } {
  const ended: string[] = [];
  return { ended, run: (name, work) => work.then(() => { ended.push(name); }) };
}

const block = (fill: number): Uint8Array => new Uint8Array(4096).fill(fill);

test('one request stops after the event, others go on, and a drain waits for it', async () => {
  const disk = await image();
  const { ended, run } = log();
  setBreakpoint(disk, 'write_aio', 'A');
  expect(isSuspended(disk, 'A')).toBe(false);
  const stopped = run('stopped', disk.write(0, block(1)));
  await whenSuspended(disk, 'A');
  expect(isSuspended(disk, 'A')).toBe(true);
  expect(isSuspended(disk, 'B')).toBe(false);
  await run('beside', disk.write(65536, block(2))); // a breakpoint holds once
  const drained = run('drained', disk.drained(async () => {}));
  await new Promise((resolve) => { setImmediate(resolve); });
  expect(ended).toEqual(['beside']);
  resumeRequest(disk, 'A');
  await Promise.all([stopped, drained]);
  expect(ended).toEqual(['beside', 'stopped', 'drained']);
  const found = block(0);
  await disk.read(0, found);
  expect(found).toEqual(block(1));
  await disk.close();
});

test('a read beside a copy on write that has stopped sees the old data', async () => {
  const disk = await image();
  await disk.driver.snapshots!.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 });
  await disk.write(0, block(1));
  await disk.flush();
  await disk.driver.snapshots!.create({ name: 't', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 });
  setBreakpoint(disk, 'cow_write', 'cow');
  const stopped = disk.write(512, new Uint8Array(512).fill(9));
  await whenSuspended(disk, 'cow');
  const found = block(0);
  await disk.read(0, found);
  expect(found).toEqual(block(1));
  resumeRequest(disk, 'cow');
  await stopped;
  await disk.read(0, found);
  expect(found.subarray(512, 1024)).toEqual(new Uint8Array(512).fill(9));
  await disk.close();
});

test('removing a breakpoint lets all that waits at it go on', async () => {
  const disk = await image();
  setBreakpoint(disk, 'write_aio', 'A');
  setBreakpoint(disk, 'read_aio', 'A');
  const write = disk.write(0, block(1));
  await whenSuspended(disk, 'A');
  removeBreakpoint(disk, 'A'); // that of the read
  await write;
  await disk.read(0, block(0));
  expect(isSuspended(disk, 'A')).toBe(false);
  await disk.close();
});

test('refusals are those of qemu-io', async () => {
  const disk = await image();
  expect(() => setBreakpoint(disk, 'foo', 'A')).toThrow('Could not set breakpoint: No such file or directory');
  expect(() => removeBreakpoint(disk, 'A')).toThrow('Could not remove breakpoint A: No such file or directory');
  expect(() => resumeRequest(disk, 'A')).toThrow('Could not resume request: No such file or directory');
  setBreakpoint(disk, 'write_aio', 'A');
  const write = disk.write(0, block(1));
  await whenSuspended(disk, 'A');
  // it has been reached, so there is none to remove; what waited goes on all the same, as in QEMU
  expect(() => removeBreakpoint(disk, 'A')).toThrow('Could not remove breakpoint A: No such file or directory');
  await write;
  await disk.close();
  const plain = new BlockNode({ name: 'plain', driver: new MemoryDriver({ bytes: 4096 }) });
  expect(() => setBreakpoint(plain, 'write_aio', 'A')).toThrow('Could not set breakpoint: Operation not supported');
  expect(isSuspended(plain, 'A')).toBe(false);
});
