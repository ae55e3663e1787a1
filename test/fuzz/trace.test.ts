/** Damaged captures: reading ends, in order of time, every byte is a record's or counted, whatever pieces it comes in; printing ends too. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { blkparse, BlockError, DEFAULT_BATCH, openTrace, Random, type BlkparseOptions, type Clock, type ReadFindings, type RecordBatch } from '../../src/index.js';
import { repository } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { inPieces, recordsOf } from '../support/trace-records.js';

const SEEDS = 150;
const HEADER = 48;
const tmp = useTmp();
const bases = ['qemu-savevm.blktrace.0', 'qemu-savevm.ftrace-stream.bin', 'qemuio-rmw.blktrace.1', 'synth-mixed.blktrace.0', 'synth-mixed.blktrace.1']
  .map((name) => readFileSync(join(repository, 'fixtures', 'trace', name)));
const OPTIONS: BlkparseOptions = {
  formats: new Map(), mask: -1, from: 0, to: Infinity, trackIos: true, perProcess: true, hashByName: false, quiet: false, dumpMessages: true, batch: DEFAULT_BATCH,
};

/** Nobody waits so long for a piece that what there is would be told first. */
const STILL: Clock = { wallMs: () => 0, monotonicMs: () => 0, sleep: () => new Promise(() => undefined) };

/** Offsets of the records of an undamaged capture. */
function startsOf(data: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at < data.length; at += HEADER + data.readUInt16LE(at + 46)) starts.push(at);
  return starts;
}

type Hand = (data: Buffer, random: Random) => Buffer;

const HANDS: readonly Hand[] = [
  (data, random) => data.subarray(0, random.below(data.length)),
  (data, random) => data.subarray(random.below(200)),
  (data, random) => put(data, random.pick(startsOf(data)) + random.below(4), random.next32() % 256),
  (data, random) => put(data, random.pick(startsOf(data)) + 46 + random.below(2), random.pick([0, 1, 8, 0x7f, 0xff])),
  (data, random) => put(data, random.pick(startsOf(data)) + 8 + random.below(8), random.next32() % 256),
  (data, random) => put(data, random.pick(startsOf(data)) + 28 + random.below(16), random.pick([0, 1, 4, 8, 0xff])),
  (data, random) => {
    const [from, to] = [random.below(data.length), random.below(data.length)];
    const junk = Buffer.alloc(random.below(3000), random.pick(['tae', '\x07tae', 'eat\x07', '\0', 'x']), 'latin1');
    return Buffer.concat([data.subarray(0, from), junk, random.chance(0.5) ? data.subarray(from) : data.subarray(to)]);
  },
  (data, random) => {
    const bytes = Buffer.from(data);
    for (let flips = 1 + random.below(60); flips > 0; flips--) bytes[random.below(bytes.length)]! ^= 2 ** random.below(8);
    return bytes;
  },
  (data, random) => {
    const starts = startsOf(data);
    const [a, b] = [random.below(starts.length - 1), random.below(starts.length - 1)];
    const record = (index: number): Buffer => data.subarray(starts[index], starts[index + 1]);
    return Buffer.concat(starts.map((start, index) => (index === a ? record(b) : index === b ? record(a) : data.subarray(start, starts[index + 1] ?? data.length))));
  },
  (data, random) => {
    const bytes = Buffer.from(data);
    random.fill(bytes.subarray(random.below(bytes.length)).subarray(0, random.below(2000)));
    return bytes;
  },
];

function put(data: Buffer, at: number, value: number): Buffer {
  const bytes = Buffer.from(data);
  bytes[at] = value;
  return bytes;
}

function damaged(random: Random): Buffer {
  const base = random.pick(bases);
  const first = random.pick(HANDS)(base, random);
  // hands that look for records need whole ones: a second hand is one that does not
  return random.chance(0.5) ? first : random.pick([HANDS[0]!, HANDS[1]!, HANDS[6]!, HANDS[7]!, HANDS[9]!])(first.length === 0 ? base : first, random);
}

interface Outcome { readonly text: string; readonly findings: ReadFindings }

/** All that a reader tells, checked on the way. */
async function read(data: Buffer, pieceBytes: number): Promise<Outcome> {
  const reader = await openTrace(inPieces(data, pieceBytes), { clock: STILL });
  const lines: string[] = [];
  let last = 0;
  let accounted = 0;
  const check = (batch: RecordBatch): void => {
    if (batch.count === 0) throw new Error('an empty batch');
    for (const record of recordsOf(batch)) {
      if (!(record.time >= last)) throw new Error(`time ${record.time} after ${last}`);
      last = record.time;
      accounted += HEADER + record.pdu.length / 2;
      lines.push(Object.values(record).join(' '));
    }
  };
  try {
    for await (const batch of reader) check(batch);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    lines.push(error.message);
  }
  const { skippedBytes, skips } = reader.findings;
  // records of version 8 are longer, and the id of a cgroup is no part of a payload
  if (accounted + skippedBytes > data.length) throw new Error(`${accounted} bytes of records and ${skippedBytes} skipped are more than ${data.length}`);
  if (skips === 0 && lines.length > 1 && data.length - accounted > 24 * lines.length) throw new Error(`${data.length - accounted} bytes are not accounted for`);
  return { text: lines.join('\n'), findings: { ...reader.findings } };
}

test.each(Array.from({ length: SEEDS }, (_, index) => index + 1))('seed %i', async (seed) => {
  const random = new Random(seed);
  const data = damaged(random);
  const whole = await read(data, 1 << 20);
  const pieces = await read(data, random.pick([random.below(100) + 1, 4096, 65_536]));
  expect(pieces.findings).toEqual(whole.findings);
  expect(pieces.text === whole.text).toBe(true);
  writeFileSync(tmp('x.bin'), data);
  let printed = 0;
  const write = (bytes: Uint8Array): Promise<void> => Promise.resolve(void (printed += bytes.length));
  try {
    await blkparse({ inputs: [tmp('x.bin')], options: OPTIONS, write, writeDump: write });
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
  }
  expect(printed).toBeLessThan(20 * data.length + 100_000);
}, 60_000);

test('a file of false magics takes no longer than one of records', async () => {
  for (const filler of ['\x07tae', 'tae', 'eat\x07', '\x08tae\0\0\0\0']) {
    const data = Buffer.alloc(4_000_000, filler, 'latin1');
    const started = performance.now();
    await openTrace(inPieces(data, 65_536)).then(async (reader) => { for await (const batch of reader) expect(batch.count).toBeGreaterThan(0); }).catch((error: unknown) => expect(error).toBeInstanceOf(BlockError));
    expect(performance.now() - started).toBeLessThan(30_000);
  }
}, 120_000);
