/** The journal's files on a real disk: what is found again, what is not trusted, and what is no record at all. */
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { systemClock } from '../../../../src/base/clock.js';
import { BitArray } from '../../../../src/block/bit-array.js';
import { JournalDirectory } from '../../../../src/job/journal/files.js';
import { identify, type FileIdentity } from '../../../../src/job/journal/identity.js';
import { JobJournal, type RunningJob } from '../../../../src/job/journal/journal.js';
import { decodeRecord, encodeRecord, type JobRecord } from '../../../../src/job/journal/record.js';
import { readRegions, regionBytesFor, regionCount, wholeFile, type Lease } from '../../../../src/job/journal/region-file.js';
import { waitFor } from '../../../support/cli.js';

const MiB = 1024 * 1024;
let directory: string;
let running: RunningJob | null = null;
beforeEach(() => { directory = mkdtempSync(path.join(os.tmpdir(), 'journal-')); });
afterEach(async () => {
  await running?.intent.close();
  running = null;
  rmSync(directory, { recursive: true, force: true });
});

const disk = (name: string): string => path.join(directory, name);

async function record(changes: Partial<JobRecord> = {}): Promise<JobRecord> {
  const file = async (name: string): Promise<readonly FileIdentity[]> => {
    writeFileSync(disk(name), name);
    return [(await identify(disk(name), true))!];
  };
  return {
    jobId: 'job', type: 'mirror', state: 'running', source: { nodeName: 'a', shape: '', files: await file('a') }, target: { nodeName: 'b', shape: '', files: await file('b') },
    options: { sync: 'full', granularity: 65536, unmap: true }, length: 100 * MiB, regionBytes: MiB, nonce: 7, ...changes,
  };
}

async function journal(boot = 'this boot', bootedMs = systemClock.wallMs()): Promise<JobJournal> {
  return new JobJournal({ files: await JournalDirectory.open(disk('state')), clock: systemClock, boot, bootedMs, identify });
}

function readLeases(): readonly (Lease | null)[] {
  const { durable, volatile } = readRegions({ length: 100 * MiB, regionBytes: MiB, nonce: 7 }, readFileSync(disk('state/job.dirty')))!;
  return [durable, volatile];
}

const none = (message: string): never => { throw new Error(message); };

async function interrupted(changes: Partial<JobRecord> = {}): Promise<void> {
  const dirty = new BitArray(100);
  dirty.set(3, 5);
  running = await (await journal()).begin(await record(changes), dirty);
  const ready = running.intent.begin(50 * MiB, 1);
  expect(ready).not.toBeNull();
  await ready;
  expect(running.intent.begin(50 * MiB + 5, 1)).toBeNull();
}

/** The process tells nothing any more. */
async function killed(): Promise<void> {
  await running!.intent.close();
  running = null;
}

test('an interrupted job is found with what may differ', async () => {
  await interrupted();
  const [found] = await (await journal()).find(none);
  expect(found).toMatchObject({ record: { jobId: 'job', options: { sync: 'full', granularity: 65536, unmap: true } }, distrust: null });
  expect([0, 3, 4, 5, 50, 51].map((region) => found!.dirty.get(region))).toEqual([false, true, true, false, true, false]);
});

test('what became equal is clean after a checkpoint, and is marked again before the next change', async () => {
  await interrupted();
  running!.intent.ended(50 * MiB, 1);
  running!.intent.ended(50 * MiB + 5, 1);
  const job = { isCovered: () => true, flush: async () => undefined };
  await running!.intent.checkpoint(job);
  expect((await (await journal()).find(none))[0]!.dirty.ones).toBe(1); // changed just now
  await expect(running!.intent.checkpoint({ ...job, flush: async () => { throw new Error('no flush'); } })).rejects.toThrow('no flush');
  expect(running!.intent.dirtyBytes).toBe(MiB);
  await running!.intent.checkpoint(job);
  expect((await (await journal()).find(none))[0]!.dirty.ones).toBe(0);
  await running!.intent.begin(3 * MiB, 2 * MiB);
  expect((await (await journal()).find(none))[0]!.dirty.ones).toBe(2);
});

test.each<[string, () => void, RegExp]>([
  ['written by another program', () => writeFileSync(disk('a'), 'x'), /modified by another program/],
  ['as the target, written by another program', () => utimesSync(disk('b'), Date.now() / 1000 + 60, Date.now() / 1000 + 60), /modified by another program/],
  ['replaced', () => { rmSync(disk('a')); writeFileSync(disk('z'), 'x'); writeFileSync(disk('a'), 'a'); }, /another file|modified/],
  ['gone', () => rmSync(disk('a')), /another file/],
])('an image that was %s is copied as a whole', async (_what, change, why) => {
  await interrupted();
  await killed();
  await systemClock.sleep(80);
  change();
  const [found] = await (await journal()).find(none);
  expect(found!.distrust).toMatch(why);
  expect(found!.dirty.ones).toBe(100);
});

test.each<[string, () => void]>([
  ['written', () => writeFileSync(disk('b'), 'x')],
  ['written, and given its old time again', () => {
    const { mtime, atime } = statSync(disk('a'));
    writeFileSync(disk('a'), 'x');
    utimesSync(disk('a'), atime, mtime);
  }],
])('while nothing was under way, an image that was %s is found out at once', async (_what, change) => {
  await interrupted();
  running!.intent.ended(50 * MiB, 1);
  running!.intent.ended(50 * MiB + 5, 1);
  await waitFor('the end is told', async () => readLeases()[1]?.states?.length === 2);
  await killed();
  expect((await (await journal()).find(none))[0]!.distrust).toBeNull();
  change();
  expect((await (await journal()).find(none))[0]!.distrust).toMatch('modified by another program');
});

test('a request takes back that nothing was under way', async () => {
  await interrupted();
  running!.intent.ended(50 * MiB, 1);
  running!.intent.ended(50 * MiB + 5, 1);
  await waitFor('the end is told', async () => readLeases()[1]?.states !== undefined);
  expect(running!.intent.begin(50 * MiB, 1)).toBeNull();
  expect(readLeases()[1]!.states).toBeUndefined();
  writeFileSync(disk('a'), 'x');
  expect((await (await journal()).find(none))[0]!.distrust).toBeNull();
});

test('a job that is to go on later tells what its disks were, for the next boot too', async () => {
  await interrupted();
  const keeping = await journal();
  const job = await keeping.begin(await record({ jobId: 'other' }), new BitArray(100));
  keeping.suspend();
  expect(await job.forget()).toBe(false);
  await systemClock.sleep(30);
  await keeping.close();
  for (const boot of ['this boot', 'next boot']) {
    expect((await (await journal(boot)).find(none)).find((found) => found.record.jobId === 'other')).toMatchObject({ distrust: null, dirty: { ones: 0 } });
  }
  writeFileSync(disk('b'), 'x');
  expect((await (await journal('next boot')).find(none)).find((found) => found.record.jobId === 'other')).toMatchObject({ distrust: expect.stringContaining("b' was modified") });
});

test('what was changed after the machine had started again, the job did not change', async () => {
  await interrupted();
  await killed();
  expect((await (await journal('next boot', systemClock.wallMs())).find(none))[0]!.distrust).toBeNull();
  expect((await (await journal('next boot', systemClock.wallMs() - 10_000)).find(none))[0]!.distrust).toMatch('modified by another program');
});

test('an end that is no file, and regions that cannot be read, mean a full copy; one bad sector means its regions', async () => {
  await interrupted({ target: { nodeName: 'b', shape: '', files: null } });
  expect((await (await journal()).find(none))[0]!.distrust).toBe("node 'b' does not tell who wrote to it");
  const geometry = { length: 9000 * MiB, regionBytes: MiB, nonce: 1 };
  const file = wholeFile(geometry, new BitArray(9000), { untilMs: 5, boot: 'b' });
  file[2 * 512 + 100] = 1;
  const read = readRegions(geometry, file)!;
  expect([read.dirty.ones, read.durable]).toEqual([504 * 8, { untilMs: 5, boot: 'b' }]);
  expect(readRegions({ ...geometry, nonce: 2 }, file)).toMatchObject({ durable: null });
  expect(readRegions(geometry, file.subarray(512))).toBeNull();
});

test('a job that ended is not found, one that completed is found as that', async () => {
  await interrupted();
  await running!.complete();
  expect((await (await journal()).find(none))[0]!.record.state).toBe('completed');
  await running!.forget();
  running = null;
  expect(await (await journal()).find(none)).toEqual([]);
});

test('marks that come back at once stay, and longer each time, until they do not', async () => {
  const regions = 400;
  running = await (await journal()).begin(await record({ length: regions * MiB }), new BitArray(regions));
  const { intent } = running;
  const job = { isCovered: () => true, flush: async () => undefined };
  const write = async (): Promise<void> => {
    await Promise.all(Array.from({ length: regions }, async (_, region) => intent.begin(region * MiB, 1)));
    for (let region = 0; region < regions; region++) intent.ended(region * MiB, 1);
  };
  /** After how many checkpoints without a write the marks are gone. */
  const checkpointsUntilClean = async (): Promise<number> => {
    for (let count = 1; count < 20; count++) {
      await intent.checkpoint(job);
      if (intent.dirtyBytes === 0) return count;
    }
    return Infinity;
  };
  const waits: number[] = [];
  for (let turn = 0; turn < 4; turn++) {
    await write();
    waits.push(await checkpointsUntilClean());
  }
  expect(waits).toEqual(waits.toSorted((a, b) => a - b));
  expect(waits.at(-1)).toBeGreaterThan(waits[0]! + 2);
  for (let turn = 0; turn < 3; turn++) await intent.checkpoint(job);
  await write();
  expect(await checkpointsUntilClean()).toBeLessThanOrEqual(waits[0]! + 1);
});

test('Q-12: records of other versions and garbage are told, and nothing else is lost', async () => {
  await interrupted();
  const good = readFileSync(disk('state/job.job'), 'utf8');
  writeFileSync(disk('state/x.job'), good.replace('"version": 1', '"version": 2'));
  writeFileSync(disk('state/y.job'), '{');
  const told: string[] = [];
  expect(await (await journal()).find((message) => void told.push(message))).toHaveLength(1);
  expect(told).toEqual([expect.stringContaining("'x.job' has version 2"), expect.stringContaining("'y.job' is no job record")]);
});

test.each(['jobId', 'type', 'state', 'source', 'target', 'options', 'length', 'regionBytes', 'nonce'])('a record without a valid %s is none', async (key) => {
  const whole = await record();
  const read = (value: unknown): JobRecord => decodeRecord('r', encodeRecord({ ...whole, [key]: value }));
  expect(read(whole[key as keyof JobRecord])).toEqual(whole);
  for (const bad of [undefined, -1, 'nonsense', { files: [] }, [1]]) {
    if (key === 'jobId' && bad === 'nonsense') continue;
    if (key === 'options' && typeof bad === 'object' && !Array.isArray(bad)) expect(() => read({ a: {} })).toThrow('options');
    else expect(() => read(bad)).toThrow(`'${key}' is not valid`);
  }
});

test('regions are coarse: at most 32768 of them, none under 1 MiB', () => {
  expect([1, 32 * 1024 * MiB, 32 * 1024 * MiB + 1, 2 ** 43].map(regionBytesFor)).toEqual([MiB, MiB, 2 * MiB, 2 ** 28]);
  expect(regionCount({ length: 3 * MiB + 1, regionBytes: MiB, nonce: 0 })).toBe(4);
});
