/** Traces that grow while they are read. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { followTrace } from '../../../../src/trace/read/follow.js';
import { openTrace } from '../../../../src/trace/read/open.js';
import { repository } from '../../../support/run.js';
import { useTmp } from '../../../support/tmp.js';

const tmp = useTmp();
const fixture = (name: string): Buffer => readFileSync(join(repository, 'fixtures', 'trace', name));

/** Reads until `wanted` records have come; times in order. */
async function times(name: string, wanted: number, onRecords: (count: number) => void, mayCome = false): Promise<number[]> {
  const end = new AbortController();
  const seen: number[] = [];
  for await (const batch of await openTrace(followTrace(name, { signal: end.signal, mayCome }))) {
    seen.push(...batch.time.subarray(0, batch.count));
    onRecords(seen.length);
    if (seen.length >= wanted) end.abort();
  }
  return seen;
}

async function whole(name: string): Promise<number[]> {
  const seen: number[] = [];
  for await (const batch of await openTrace(name)) seen.push(...batch.time.subarray(0, batch.count));
  return seen;
}

test('one file, written in pieces that end anywhere', async () => {
  const all = fixture('qemu-savevm.ftrace-stream.bin');
  const path = tmp('growing.bin');
  writeFileSync(path, all.subarray(0, 1001));
  let at = 1001;
  const records = await whole(join(repository, 'fixtures', 'trace', 'qemu-savevm.ftrace-stream.bin'));
  const seen = await times(path, records.length, () => {
    const next = Math.min(all.length, at + 9973);
    appendFileSync(path, all.subarray(at, next));
    at = next;
  });
  expect(seen).toEqual(records);
});

test('several files are merged by time', async () => {
  for (const cpu of [0, 1]) writeFileSync(tmp(`t.blktrace.${cpu}`), fixture(`synth-mixed.blktrace.${cpu}`));
  const records = await whole(tmp('t'));
  const seen = await times(tmp('t'), records.length, () => undefined);
  expect(seen).toHaveLength(records.length);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
});

test('a file that grows later than the other', async () => {
  writeFileSync(tmp('t.blktrace.0'), fixture('synth-mixed.blktrace.0'));
  writeFileSync(tmp('t.blktrace.1'), '');
  const other = fixture('synth-mixed.blktrace.1');
  let grown = false;
  const records = await whole(join(repository, 'fixtures', 'trace', 'synth-mixed'));
  const seen = await times(tmp('t'), records.length, () => {
    if (!grown) appendFileSync(tmp('t.blktrace.1'), other);
    grown = true;
  });
  expect(seen).toHaveLength(records.length);
});

test('files that come later', async () => {
  const records = await whole(join(repository, 'fixtures', 'trace', 'synth-mixed'));
  setTimeout(() => writeFileSync(tmp('t.blktrace.0'), fixture('synth-mixed.blktrace.0')), 50);
  let there = false;
  const seen = await times(tmp('t'), records.length, () => {
    if (!there) writeFileSync(tmp('t.blktrace.1'), fixture('synth-mixed.blktrace.1'));
    there = true;
  }, true);
  expect(seen).toHaveLength(records.length);
});

test('what is no file, and what is no trace', async () => {
  await expect(times(tmp('none'), 1, () => undefined)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  writeFileSync(tmp('t.blktrace.0'), 'x'.repeat(1000));
  writeFileSync(tmp('t.blktrace.1'), 'x'.repeat(1000));
  await expect(times(tmp('t'), 1, () => undefined)).rejects.toMatchObject({ code: 'CORRUPT' });
});
