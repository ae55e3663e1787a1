/** A write and its sync in one step of the kernel's: what it covers, and what is told when one of the two fails. */
import fs from 'node:fs';
import { constants } from 'node:os';
import { afterEach, expect, jest, test } from '@jest/globals';
import { wrapHostError } from '../../../src/base/errors.js';
import type { Ring } from '../../../src/base/uring.js';
import { FileSync } from '../../../src/protocol/file-sync.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const DATA = Buffer.alloc(4096, 7);
const { EAGAIN, ECANCELED, EIO, EINVAL } = constants.errno;
const fds: number[] = [];
afterEach(() => {
  jest.restoreAllMocks();
  for (const fd of fds.splice(0)) fs.closeSync(fd);
});

type Ended = (result: number) => void;

/** What went to the ring, to be ended by the test. */
function setUp() {
  fs.writeFileSync(tmp('image'), Buffer.alloc(64 * 1024));
  const fd = fs.openSync(tmp('image'), 'r+');
  fds.push(fd);
  const pairs: { readonly moved: Ended; readonly synced: Ended }[] = [];
  const syncs: Ended[] = [];
  const ring: Ring = {
    read: () => false,
    write: () => false,
    sync: (_fd, synced) => syncs.push(synced) > 0,
    writeAndSync: (_fd, _from, _offset, moved, synced) => pairs.push({ moved, synced }) > 0,
  };
  const sync = new FileSync(fd, ring, (error) => wrapHostError(error, 'the sync failed', {}));
  const write = (at = 0): Promise<void> => sync.write(DATA, at, (error) => wrapHostError(error, 'the write failed', {}));
  return { sync, write, pairs, syncs };
}

const turn = (): Promise<void> => new Promise(setImmediate);
const until = async (true_: () => boolean): Promise<void> => { while (!true_()) await turn(); };

/** Tells later how it stands. */
function watch(work: Promise<unknown>): { readonly state: string } {
  const watched = { state: 'pending' };
  work.then(() => { watched.state = 'done'; }, (error: Error) => { watched.state = error.message; });
  return watched;
}

test('it ends with both, and needs nothing else', async () => {
  const { write, pairs, syncs } = setUp();
  const written = watch(write());
  pairs[0]!.moved(4096);
  await turn();
  expect(written.state).toBe('pending');
  pairs[0]!.synced(0);
  await turn();
  expect(written.state).toBe('done');
  expect(syncs).toHaveLength(0);
});

test('a sync that fails fails the write, those that wait behind it, and all that comes', async () => {
  const { sync, write, pairs, syncs } = setUp();
  const [written, flushed, next] = [watch(write()), watch(sync.flush()), watch(write(8192))];
  pairs[0]!.moved(4096);
  pairs[0]!.synced(-EIO);
  await until(() => next.state !== 'pending');
  expect(syncs).toHaveLength(0); // the kernel tells it once: the next one would go well
  expect([written.state, flushed.state, next.state]).toEqual(Array.from({ length: 3 }, () => 'the sync failed: Input/output error'));
  expect(sync.error).toMatchObject({ errno: 'EIO' });
  await expect(sync.flush()).rejects.toThrow('the sync failed');
});

test('a flush asked for while it runs is not covered by it; a second write shares that flush', async () => {
  const { sync, write, pairs, syncs } = setUp();
  const [first, flushed, second] = [watch(write()), watch(sync.flush()), watch(write(8192))];
  await turn();
  expect(pairs).toHaveLength(1);
  expect(syncs).toHaveLength(0);
  pairs[0]!.moved(4096);
  // until the second write is on its way to the disk, too
  await until(() => fs.readFileSync(tmp('image'))[8192] === 7);
  for (let turns = 0; turns < 20; turns++) await turn();
  pairs[0]!.synced(0);
  await until(() => syncs.length === 1);
  expect([first.state, flushed.state, second.state]).toEqual(['done', 'pending', 'pending']);
  while (second.state === 'pending') {
    for (const ended of syncs.splice(0)) ended(0);
    await turn();
  }
  expect(flushed.state).toBe('done');
  expect(pairs).toHaveLength(1);
});

test.each([
  ['the write fell short', 100, -ECANCELED],
  ['the write could not begin', -EAGAIN, -ECANCELED],
  ['the kernel knows no such sync', 4096, -EINVAL],
])('%s: the thread pool does it, and a sync comes after it', async (_what, moved, synced) => {
  const { write, pairs, syncs } = setUp();
  const pool = jest.spyOn(fs, 'fdatasync');
  const written = watch(write(4096));
  pairs[0]!.synced(synced);
  pairs[0]!.moved(moved);
  await until(() => syncs.length === 1);
  if (moved !== 4096) expect(fs.readFileSync(tmp('image')).subarray(4096, 8192)).toEqual(DATA);
  expect(written.state).toBe('pending');
  syncs[0]!(synced);
  await until(() => written.state !== 'pending');
  expect(written.state).toBe('done');
  expect(pool).toHaveBeenCalledTimes(1);
});

test('where the write fails, nothing is said of the syncs: what lasts is known', async () => {
  const { sync, write, pairs, syncs } = setUp();
  jest.spyOn(fs, 'write').mockImplementation((...args: unknown[]) => {
    setImmediate(args.at(-1) as (error: Error) => void, Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }));
  });
  const written = watch(write());
  pairs[0]!.moved(-constants.errno.ENOSPC);
  pairs[0]!.synced(-ECANCELED);
  await until(() => written.state !== 'pending');
  expect(written.state).toBe('the write failed: No space left on device');
  const flushed = watch(sync.flush());
  await until(() => syncs.length === 1);
  syncs[0]!(0);
  await until(() => flushed.state !== 'pending');
  expect(flushed.state).toBe('done');
});
