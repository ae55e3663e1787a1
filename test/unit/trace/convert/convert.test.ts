/** Conversions of traces of every form are the same bytes, and read back as what went in. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { convertTrace, deviceOf, openTrace, type TraceFormName } from '../../../../src/index.js';
import { repository } from '../../../support/run.js';
import { encodeRecords, inPieces, readAll, type RecordForm, type SeenRecord, type TestRecord } from '../../../support/trace-records.js';

const capture = (name: string): string => join(repository, 'fixtures', 'trace', name);

async function converted(from: string | AsyncIterable<Uint8Array>, to: TraceFormName, devices?: readonly number[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  await convertTrace(await openTrace(from), { to, devices, write: (bytes) => Promise.resolve(void chunks.push(Buffer.from(bytes))) });
  return Buffer.concat(chunks);
}

function again(records: readonly SeenRecord[], form: RecordForm): Buffer {
  const plain = records.filter(({ action, category }) => category !== 0x400 || action !== 1);
  return encodeRecords(plain.map(({ time, sequence, sector, bytes, action, category, pid, device, cpu, error, pdu }): TestRecord => (
    { time: time + 77_000, sequence, sector, bytes, code: action, category, pid, device, cpu, error, pdu: Buffer.from(pdu, 'hex') })), form);
}

test.each<RecordForm>([{ version: 8 }, { version: 7, bigEndian: true }, { version: 8, bigEndian: true }])('%j gives the dump of the same in version 7', async (form) => {
  const records = await readAll(await openTrace(capture('synth-mixed')));
  const plain = await converted(inPieces(again(records, {}), 10_000), 'dump');
  expect(plain.length).toBeGreaterThan(100_000);
  expect(Buffer.compare(await converted(inPieces(again(records, form), 10_000), 'dump'), plain)).toBe(0);
});

test('a dump reads back as the trace, and so does a dump of the dump', async () => {
  const timeless = (records: SeenRecord[]): SeenRecord[] => records.filter(({ action, category }) => category !== 0x400 || action === 2);
  const source = await openTrace(capture('qemu-savevm'));
  const records = timeless(await readAll(source));
  const dump = await converted(capture('qemu-savevm'), 'dump');
  const reader = await openTrace(inPieces(dump, 4096));
  expect(timeless(await readAll(reader))).toEqual(records);
  expect([reader.epochNs, reader.processes]).toEqual([source.epochNs, source.processes]);
  expect(Buffer.compare(await converted(inPieces(dump, 999), 'dump'), dump)).toBe(0);
});

describe('devices', () => {
  const Q = { code: 1, category: 0x12, bytes: 4096 };
  const two = [
    { code: 0, category: 0x400, pid: 7, pdu: Buffer.from('name, "quoted"\0\0') }, { ...Q, time: 5, device: deviceOf(4000, 0), pid: 7 },
    { ...Q, time: 2005, device: deviceOf(4000, 3), sector: 8 }, { time: 3000, code: 2, category: 0x400, device: deviceOf(4000, 3), pdu: Buffer.from('a,b') },
  ];

  test('all, or some of them', async () => {
    const csv = async (devices?: readonly number[]): Promise<string[]> => (await converted(inPieces(encodeRecords(two), 1000), 'csv', devices)).toString().trimEnd().split('\n');
    const [first, second, message] = ['0,4000:0,0,0,7,"name, ""quoted""",Q,W,0,4096,0,', '2000,4000:3,0,0,0,,Q,W,8,4096,0,', '2995,4000:3,0,0,0,,m,,0,0,0,"a,b"'];
    const header = 'time_ns,device,cpu,sequence,pid,process,action,rwbs,sector,bytes,error,message';
    expect(await csv()).toEqual([header, first, second, message]);
    expect(await csv([deviceOf(4000, 3)])).toEqual([header, second, message]);
  });

  test('a log for fio has a file for each', async () => {
    expect((await converted(inPieces(encodeRecords(two), 1000), 'fio')).toString()).toBe('fio version 3 iolog\n0 device-4000-0 add\n0 device-4000-0 open\n' +
      '0 device-4000-0 write 0 4096\n2 device-4000-3 add\n2 device-4000-3 open\n2 device-4000-3 write 4096 4096\n2 device-4000-0 close\n2 device-4000-3 close\n');
  });
});
