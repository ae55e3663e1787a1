/** Logs of fio are traces of queued requests. */
import { describe, expect, test } from '@jest/globals';
import { openTrace } from '../../../../src/index.js';
import { inPieces, readAll } from '../../../support/trace-records.js';

const open = (text: string) => openTrace(inPieces(Buffer.from(text), 11));
const FILE = 4000 * 2 ** 20;
const [READ, WRITE, FLUSH, TRIM] = [0x11, 0x12, 0x1e, 0x2012];

describe('a log of version', () => {
  test('3, with times', async () => {
    const reader = await open('fio version 3 iolog\n22 a add\n134 a open\n137 a read 0 4096\n6748 b write 1000 100\n6749 a sync 0 0\n7000 a trim 8192 1048576\n7001 a close\n');
    expect((await readAll(reader)).map(({ time, sequence, sector, bytes, category, device }) => [time, sequence, sector, bytes, category, device - FILE])).toEqual([
      [0, 1, 0, 4096, READ, 0], [6_611_000, 2, 1, 1024, WRITE, 1], [6_612_000, 3, 0, 0, FLUSH, 0], [6_863_000, 4, 16, 1_048_576, TRIM, 0],
    ]);
    expect(reader.findings).toEqual({ skippedBytes: 0, skips: 0, outOfOrder: 0 });
  });

  test('2, with waits', async () => {
    const reader = await open('fio version 2 iolog\nf add\nf open\nf read 512 512\nf wait 150 0\nf write 0 512\nf datasync 0 0\nf close');
    expect((await readAll(reader)).map(({ time, sector, category }) => [time, sector, category])).toEqual([[0, 1, READ], [150_000, 0, WRITE], [150_000, 0, FLUSH]]);
  });

  test('1', async () => {
    const reader = await open('0, 1024, 512\n1,0,4096\n');
    expect((await readAll(reader)).map(({ sector, bytes, category }) => [sector, bytes, category])).toEqual([[2, 512, READ], [0, 4096, WRITE]]);
  });
});

test('lines that say nothing known are counted', async () => {
  const reader = await open('fio version 2 iolog\nf read 0 512\nf rubbish\nf read -1 5\nwhat\nf write 0 512\n');
  expect(await readAll(reader)).toHaveLength(2);
  expect(reader.findings).toEqual({ skips: 3, skippedBytes: 10 + 12 + 5, outOfOrder: 0 });
});

test('a log without I/O is none', async () => {
  await expect(open('fio version 2 iolog\nf add\n').then(readAll)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: "'the stream' is a log of fio without any I/O" });
});
