/** Traces by all their names and in all their forms are the same records in order of time. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { openTrace } from '../../../../src/index.js';
import { repository } from '../../../support/run.js';
import { useTmp } from '../../../support/tmp.js';
import { encodeRecord, encodeRecords, inPieces, readAll, type RecordForm, type TestRecord } from '../../../support/trace-records.js';

const tmp = useTmp();
const fixture = (name: string): string => join(repository, 'fixtures', 'trace', name);
const READ_Q = { code: 1, category: 0x11 };
const NOTIFY = 0x400;
const MINUTE = 60_000_000_000n;

describe('the form of records', () => {
  const records: TestRecord[] = [
    { time: 4n * MINUTE, code: 1, category: NOTIFY, device: 8 << 20 },
    { time: 5n * MINUTE, code: 0, category: NOTIFY, pid: 77, pdu: Buffer.from('a name\0\0\0\0\0\0\0\0\0\0') },
    { time: 5n * MINUTE, sequence: 1, sector: 2n ** 40n + 5n, bytes: 4096, ...READ_Q, pid: 77, device: 8 * 2 ** 20 + 3, cpu: 1, error: 65514 },
    { time: 5n * MINUTE + 1000n, sequence: 2, code: 10, category: 0x11, pid: 77, pdu: Buffer.from('0000000000000003', 'hex') },
    { time: 5n * MINUTE + 2000n, sequence: 3, bytes: 0xffff_fe00, code: 7, category: 0x8142, pid: 2 ** 31, device: 0xffff_ffff },
  ];
  const forms: RecordForm[] = [
    { version: 7 }, { version: 8 }, { version: 7, bigEndian: true }, { version: 8, bigEndian: true }, { version: 7, headerOf: 8 }, { version: 8, headerOf: 7 },
  ];

  test.each(forms)('%j', async (form) => {
    const reader = await openTrace(inPieces(encodeRecords(records, form), 37));
    const seen = await readAll(reader);
    expect(seen.map(({ time, sequence }) => [time, sequence])).toEqual([[0, 0], [0, 0], [0, 1], [1000, 2], [2000, 3]]);
    expect(seen[2]).toEqual({ time: 0, sequence: 1, sector: 2 ** 40 + 5, bytes: 4096, action: 1, category: 0x11, pid: 77, device: 8 * 2 ** 20 + 3, cpu: 1, error: 65514, pdu: '' });
    expect(seen[3]!.pdu).toBe('0000000000000003');
    expect(seen[4]).toMatchObject({ bytes: 0xffff_fe00, category: 0x8142, pid: 2 ** 31, device: 0xffff_ffff });
    expect(reader.processes).toEqual(new Map([[77, 'a name']]));
    expect(reader.findings).toEqual({ skippedBytes: 0, skips: 0, outOfOrder: 0 });
  });

  test('categories that only version 8 has', async () => {
    const reader = await openTrace(inPieces(encodeRecords([{ code: 18, category: 0x40_0012 }, { code: 19, category: 0x2_0012 }], { version: 8 }), 1000));
    expect((await readAll(reader)).map(({ action, category }) => [action, category])).toEqual([[18, 0x40_0012], [19, 0x2_0012]]);
  });

  test('the id of a cgroup is no part of the payload', async () => {
    const pdu = Buffer.from('0102030405060708aabb', 'hex');
    const reader = await openTrace(inPieces(encodeRecords([{ code: 0x101, category: 0x11, pdu }, { code: 0x102, category: NOTIFY, pdu: pdu.subarray(0, 8) }]), 1000));
    expect((await readAll(reader)).map(({ action, pdu }) => [action, pdu])).toEqual([[1, 'aabb'], [2, '']]);
  });

  test('times beyond 104 days of uptime are exact to the nanosecond', async () => {
    const start = 2n ** 60n + 1n;
    const reader = await openTrace(inPieces(encodeRecords([{ time: start, ...READ_Q }, { time: start + 3n, ...READ_Q }, { time: start + 2n ** 52n + 1n, ...READ_Q }]), 1000));
    expect((await readAll(reader)).map(({ time }) => time)).toEqual([0, 3, 2 ** 52 + 1]);
  });

  test.each([false, true])('the wall clock of time 0 (big-endian: %s)', async (bigEndian) => {
    const stamp = Buffer.alloc(8);
    stamp[bigEndian ? 'writeUInt32BE' : 'writeUInt32LE'](1_600_000_000, 0);
    stamp[bigEndian ? 'writeUInt32BE' : 'writeUInt32LE'](999_999_999, 4);
    const of = async (first: bigint): Promise<bigint | null> => {
      const records = [{ time: MINUTE, code: 1, category: NOTIFY, pdu: stamp }, { time: first, ...READ_Q }];
      const reader = await openTrace(inPieces(encodeRecords(records, { bigEndian }), 1000));
      expect((await readAll(reader))[0]!.pdu).toBe('00105e5fffc99a3b');
      return reader.epochNs;
    };
    expect(await of(MINUTE + 5n)).toBe(1_600_000_000_999_999_999n + 5n);
    // `blkparse -d` counts events from 0, and leaves the time of the stamp
    expect(await of(0n)).toBe(1_600_000_000_999_999_999n);
  });
});

describe('names', () => {
  test('per-CPU files by their name, or by one of theirs, are merged', async () => {
    const byName = await readAll(await openTrace(fixture('qemu-savevm')));
    expect(byName).toHaveLength(974);
    expect(byName.filter(({ category }) => (category & NOTIFY) === 0)).toHaveLength(964);
    expect(byName).toEqual(await readAll(await openTrace(fixture('qemu-savevm.blktrace.1'))));
    const times = byName.map(({ time }) => time);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(new Set(byName.map(({ cpu }) => cpu))).toEqual(new Set([0, 1]));
  });

  test('the kernel stream of all CPUs has the same events', async () => {
    const plain = (records: Awaited<ReturnType<typeof readAll>>): string[] => records.filter(({ category }) => (category & NOTIFY) === 0)
      .map(({ time, sector, bytes, action, category, pid, cpu, error }) => [time, sector, bytes, action, category, pid, cpu, error].join(' ')).sort();
    const stream = await readAll(await openTrace(fixture('qemu-savevm.ftrace-stream.bin')));
    expect(plain(stream)).toEqual(plain(await readAll(await openTrace(fixture('qemu-savevm')))));
  });

  test('many files, records of equal times in the order of their files', async () => {
    for (let cpu = 0; cpu < 20; cpu++) {
      const records = Array.from({ length: 50 }, (_, index) => ({ time: 1000 + Math.floor((index * 20 + cpu) / 40) * 7, sequence: index + 1, cpu, ...READ_Q }));
      writeFileSync(tmp(`many.blktrace.${cpu}`), encodeRecords(records));
    }
    writeFileSync(tmp('many.blktrace.20'), '');
    const seen = await readAll(await openTrace(tmp('many')));
    expect(seen).toHaveLength(1000);
    const keys = seen.map(({ time, cpu, sequence }) => time * 1e6 + cpu * 1e3 + sequence);
    expect(keys).toEqual(keys.toSorted((a, b) => a - b));
  });

  test('what is not there, is no trace, or is empty', async () => {
    await expect(openTrace(tmp('none'))).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringMatching(/neither a trace '.*none' nor '.*none\.blktrace\.0'$/) });
    await expect(openTrace(tmp(''))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    writeFileSync(tmp('text'), 'no trace at all '.repeat(100));
    await expect(openTrace(tmp('text')).then(readAll)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/is no trace: there is not one blktrace record in its 1600 bytes$/) });
    writeFileSync(tmp('empty.blktrace.0'), '');
    expect(await readAll(await openTrace(tmp('empty')))).toEqual([]);
  });
});

describe('damage', () => {
  const good = Array.from({ length: 100 }, (_, index) => ({ time: 1000 + index, sequence: index + 1, ...READ_Q, ...(index % 3 === 0 ? { pdu: Buffer.alloc(index % 50, 0x5a) } : {}) }));
  const bytes = encodeRecords(good);
  const starts = good.map((_, index) => encodeRecords(good.slice(0, index)).length);
  const read = async (data: Uint8Array): Promise<{ sequences: number[]; findings: object }> => {
    const reader = await openTrace(inPieces(data, 999));
    const sequences = (await readAll(reader)).map(({ sequence }) => sequence);
    return { sequences, findings: reader.findings };
  };
  const allBut = (...missing: number[]): number[] => good.map(({ sequence }) => sequence).filter((sequence) => !missing.includes(sequence));

  test('a cut end', async () => {
    expect(await read(bytes.subarray(0, bytes.length - 5))).toEqual({ sequences: allBut(100), findings: { skips: 1, skippedBytes: bytes.length - 5 - starts[99]!, outOfOrder: 0 } });
  });

  test('a wrong magic costs one record', async () => {
    const bad = Buffer.from(bytes);
    bad[starts[50]! + 2] = 0;
    expect(await read(bad)).toEqual({ sequences: allBut(51), findings: { skips: 1, skippedBytes: starts[51]! - starts[50]!, outOfOrder: 0 } });
  });

  test('a length that is a lie hides nothing but its own record', async () => {
    const bad = Buffer.from(bytes);
    bad.writeUInt16LE(65_535, starts[20]! + 46);
    bad.writeUInt16LE(700, starts[40]! + 46);
    expect(await read(bad)).toMatchObject({ sequences: allBut(21, 41), findings: { skips: 2 } });
  });

  test('rubbish before, between and after', async () => {
    const rubbish = Buffer.alloc(5000, 'taetae');
    const damaged = Buffer.concat([rubbish, bytes.subarray(0, starts[30]), rubbish, bytes.subarray(starts[30]), rubbish]);
    expect(await read(damaged)).toEqual({ sequences: allBut(), findings: { skips: 3, skippedBytes: 15_000, outOfOrder: 0 } });
  });

  test('one record alone is a trace', async () => {
    expect((await read(encodeRecord({ sequence: 9, ...READ_Q }))).sequences).toEqual([9]);
  });

  test('records out of order are put in order and counted', async () => {
    const shuffled = good.map((_, index) => good[index % 10 === 5 ? index - 1 : index % 10 === 4 ? index + 1 : index]!);
    expect(await read(encodeRecords(shuffled))).toEqual({ sequences: allBut(), findings: { skips: 0, skippedBytes: 0, outOfOrder: 10 } });
  });

  test('one that comes far too late does not turn time back', async () => {
    const many = Array.from({ length: 30_000 }, (_, index) => ({ time: 10_000 + index, ...READ_Q }));
    const reader = await openTrace(inPieces(encodeRecords([...many, { time: 10_001, ...READ_Q }]), 1 << 20));
    const times = (await readAll(reader)).map(({ time }) => time);
    expect(times).toHaveLength(30_001);
    expect(times.findIndex((time, index) => index > 0 && time < times[index - 1]!)).toBe(-1);
    expect(reader.findings.outOfOrder).toBe(1);
  });
});

test('a live stream is told before its next record comes', async () => {
  let release = (): void => undefined;
  const gate = new Promise<void>((resolve) => { release = resolve; });
  async function* live(): AsyncGenerator<Uint8Array> {
    yield encodeRecords([{ time: 5, sequence: 1, ...READ_Q }, { time: 6, sequence: 2, ...READ_Q }]);
    await gate;
    yield encodeRecords([{ time: 7, sequence: 3, ...READ_Q }]);
  }
  const counts: number[] = [];
  for await (const batch of await openTrace(live())) {
    counts.push(batch.count);
    release();
  }
  expect(counts).toEqual([2, 1]);
});

test('a signal ends a stream that says nothing more', async () => {
  const stop = new AbortController();
  async function* silent(): AsyncGenerator<Uint8Array> {
    yield encodeRecords([{ time: 5, sequence: 1, ...READ_Q }, { time: 6, sequence: 2, ...READ_Q }]);
    await new Promise(() => undefined);
  }
  let records = 0;
  for await (const batch of await openTrace(silent(), { signal: stop.signal })) {
    records += batch.count;
    stop.abort();
  }
  expect(records).toBe(2);
});
