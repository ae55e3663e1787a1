import { expect, test } from '@jest/globals';
import { EarlyWriteOut } from '../../../src/protocol/write-out.js';
import { setTimeout as sleep } from 'node:timers/promises';

const MiB = 1024 * 1024;

interface Started {
  readonly range: readonly [offset: number, bytes: number];
  readonly end: (error?: Error) => void;
}

function recorded(): { writeOut: EarlyWriteOut; started: Started[] } {
  const started: Started[] = [];
  const writeOut = new EarlyWriteOut(7, (fd, offset, bytes) => new Promise((resolve, reject) => {
    expect(fd).toBe(7);
    started.push({ range: [offset, bytes], end: (error) => { if (error === undefined) resolve(); else reject(error); } });
  }));
  return { writeOut, started };
}

function write(writeOut: EarlyWriteOut, from: number, to: number): void {
  for (let at = from; at < to; at++) writeOut.wrote(at * MiB, MiB);
}

test('bulk writes are begun to be written out 16 MiB at a time, while somebody wants it', () => {
  const { writeOut, started } = recorded();
  write(writeOut, 0, 64);
  expect(started).toEqual([]);
  writeOut.begin();
  expect(writeOut.wanted).toBe(true);
  for (let at = 0; at < 1000; at++) writeOut.wrote(at * 65536, 65536);
  expect(started).toEqual([]);
  write(writeOut, 100, 116);
  expect(started.map(({ range }) => range)).toEqual([[100 * MiB, 16 * MiB]]);
  writeOut.end();
  write(writeOut, 0, 64);
  expect(writeOut.wanted).toBe(false);
  expect(started.length).toBe(1);
});

test('one at a time; what came meanwhile goes with the next', async () => {
  const { writeOut, started } = recorded();
  writeOut.begin();
  write(writeOut, 0, 50);
  expect(started.length).toBe(1);
  let settled = false;
  const end = writeOut.settled().then(() => { settled = true; });
  await sleep(5);
  expect(settled).toBe(false);
  started[0]!.end();
  await end;
  write(writeOut, 60, 61);
  expect(started.map(({ range }) => range)).toEqual([[0, 16 * MiB], [16 * MiB, 45 * MiB]]);
});

test('a file that cannot is asked once, and nobody hears of it', async () => {
  const { writeOut, started } = recorded();
  writeOut.begin();
  write(writeOut, 0, 16);
  started[0]!.end(new Error('ESPIPE'));
  await writeOut.settled();
  write(writeOut, 16, 64);
  expect(started.length).toBe(1);
});
