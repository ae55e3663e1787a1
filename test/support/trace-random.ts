/** Captures of random records of all kinds that blkparse knows, sensible or not. */
import { writeFileSync } from 'node:fs';
import { Random } from '../../src/index.js';
import { encodeRecord, type RecordForm, type TestRecord } from './trace-records.js';

const [READ, WRITE, FLUSH, SYNC, FS, PC, NOTIFY] = [1, 2, 4, 8, 0x100, 0x200, 0x400] as const;
/** By code of action: the category that belongs to it. */
const CATEGORY: Readonly<Record<number, number>> = {
  1: 0x10, 2: 0x10, 3: 0x10, 4: 0x10, 5: 0x10, 6: 0x20, 7: 0x40, 8: 0x80, 9: 0x10, 10: 0x10, 11: 0x10, 12: 0x10, 13: 0, 14: 0, 15: 0x10,
};
const DEVICES = [8 * 2 ** 20, 8 * 2 ** 20 + 1, 253 * 2 ** 20 + 3, 9 * 2 ** 20, 4000 * 2 ** 20 + 7];
const NAMES = ['fio', 'a10', 'a9', 'x'.repeat(20), 'kworker/0:1', '', 'a01', 'with\0rest'];

function word(value: number, bytes: 4 | 8): Buffer {
  const out = Buffer.alloc(bytes);
  if (bytes === 8) out.writeBigUInt64BE(BigInt(value));
  else out.writeUInt32BE(value);
  return out;
}

/** One random record without time and CPU. */
function someRecord(random: Random, devices: readonly number[], named: boolean): TestRecord {
  const device = random.pick(devices);
  if (named && random.chance(0.02)) return { code: 0, category: NOTIFY, pid: random.below(12), device, pdu: Buffer.from(random.pick(NAMES).slice(0, 16).padEnd(16, '\0')) };
  if (random.chance(0.02)) return { code: 2, category: NOTIFY, device, pdu: Buffer.from(random.pick(['hello', '', 'a\0b', 'm'.repeat(700)])) };
  if (random.chance(0.005)) return { code: 3, category: NOTIFY, device, pdu: Buffer.from('abcd') };
  const code = random.pick([1, 1, 1, 4, 12, 12, 7, 7, 7, 8, 8, 8, 2, 3, 5, 6, 9, 10, 11, 13, 14, 15]);
  const packet = [1, 4, 5, 6, 7, 8, 12].includes(code) && random.chance(0.05);
  let category = CATEGORY[code]! + (random.chance(0.5) ? WRITE : READ) + (packet ? PC : random.chance(0.5) ? FS : 0);
  for (const bit of [FLUSH, SYNC, 0x800, 0x1000, 0x2000, 0x8000]) if (random.chance(0.1)) category += bit;
  return {
    code, category, device, pdu: somePayload(random, code, packet, devices), sector: random.pick([random.below(8) * 8, random.below(2 ** 21), 3]),
    bytes: random.pick([0, 512, 4096, 4096, 65_536, 100, 1500]), pid: random.pick([0, 1, 2, 3, 4, 5, 6, 7, 100_000]), error: random.pick([0, 0, 5, 65_514]),
  };
}

function somePayload(random: Random, code: number, packet: boolean, devices: readonly number[]): Uint8Array {
  if (code === 10 || code === 11) return word(random.pick([0, 1, 5, 2 ** 32 + 7]), 8);
  if (code === 13) return word(random.below(2 ** 35), 8);
  if (code === 15) return Buffer.concat([word(random.pick(devices), 4), word(random.pick(devices), 4), word(random.below(2 ** 40), 8)]);
  return packet ? random.pick([Buffer.alloc(0), Buffer.from('120000002400', 'hex'), Buffer.alloc(10), Buffer.from('010203', 'hex')]) : Buffer.alloc(0);
}

export interface RandomTrace {
  readonly records: readonly (TestRecord & { readonly cpu: number })[];
  readonly form: RecordForm;
}

/** In order of time, numbered per CPU with a few gaps. */
export function randomTrace(seed: number): RandomTrace {
  const random = new Random(seed);
  const cpus = random.pick([1, 2, 3, 5]);
  const devices = DEVICES.slice(0, 1 + random.below(DEVICES.length));
  const named = random.chance(0.7);
  const sequences = new Array<number>(cpus).fill(0);
  let time = random.pick([1, 10 ** 9, 2 ** 40]) + random.below(1000);
  const records = Array.from({ length: random.pick([5, 60, 700, 2000]) }, () => {
    const cpu = random.below(cpus);
    time += random.pick([0, 0, 1, 1000, 10 ** 6, random.chance(0.02) ? 10 ** 9 : 5]);
    const record = someRecord(random, devices, named);
    if ((record.category! & NOTIFY) !== 0) return { ...record, time, cpu };
    sequences[cpu]! += random.chance(0.01) ? 1 + random.below(5) : 1;
    return { ...record, time, cpu, sequence: random.chance(0.995) ? sequences[cpu]! : random.pick([0, 2 ** 31 + 5, 1]) };
  });
  return { records, form: { bigEndian: random.chance(0.25) } };
}

/** Writes `PATH.blktrace.N`, and all of them one after the other as `PATH.all`. */
export function writeTrace(path: string, { records, form }: RandomTrace): void {
  const cpus = Math.max(...records.map(({ cpu }) => cpu)) + 1;
  const files = Array.from({ length: cpus }, (_, cpu) => Buffer.concat(records.filter((record) => record.cpu === cpu).map((record) => encodeRecord(record, form))));
  for (const [cpu, file] of files.entries()) writeFileSync(`${path}.blktrace.${cpu}`, file);
  writeFileSync(`${path}.all`, Buffer.concat(files));
}
