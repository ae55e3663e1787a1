/** What the recorder writes, byte for byte as blktrace's format has it. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { TraceRecorder } from '../../../src/trace/recorder.js';
import type { TracedRequest } from '../../../src/trace/sink.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const NODE = { driver: 'qcow2', nodeName: '#block1', name: '/images/a b.qcow2' };
const FILE = { ...NODE, driver: 'file' };
const READ: TracedRequest = { op: 'read', offset: 4096, bytes: 8192, flags: 0, id: 1, ioClass: 'interactive', cause: '', task: null };

interface Raw {
  readonly sequence: number;
  readonly time: number;
  readonly sector: number;
  readonly bytes: number;
  readonly action: number;
  readonly pid: number;
  readonly device: number;
  readonly error: number;
  readonly pdu: Buffer;
}

function records(files: readonly string[]): Raw[] {
  return files.flatMap((file, cpu) => recordsIn(file, cpu)).toSorted((a, b) => a.time - b.time);
}

function recordsIn(file: string, cpu: number): Raw[] {
  const all = readFileSync(file);
  const found: Raw[] = [];
  for (let at = 0; at < all.byteLength;) {
    expect(all.readUInt32LE(at)).toBe(0x6561_7407);
    expect(all.readUInt32LE(at + 40)).toBe(cpu);
    const pduLength = all.readUInt16LE(at + 46);
    found.push({
      sequence: all.readUInt32LE(at + 4), time: Number(all.readBigUInt64LE(at + 8)), sector: Number(all.readBigUInt64LE(at + 16)),
      bytes: all.readUInt32LE(at + 24), action: all.readUInt32LE(at + 28), pid: all.readUInt32LE(at + 32), device: all.readUInt32LE(at + 36),
      error: all.readUInt16LE(at + 44), pdu: all.subarray(at + 48, at + 48 + pduLength),
    });
    at += 48 + pduLength;
  }
  return found;
}

async function recorded(work: (recorder: TraceRecorder) => void): Promise<{ events: Raw[]; notes: Raw[] }> {
  let now = 5000;
  const recorder = new TraceRecorder(tmp('t'), { now: () => { now += 0.25; return now; } });
  work(recorder);
  const summary = await recorder.stop();
  expect(summary.failure).toBeNull();
  const all = records(summary.files);
  const isNote = ({ action }: Raw): boolean => action >= 0x0400_0000 && action <= 0x0400_0002;
  const events = all.filter((record) => !isNote(record));
  const notes = all.filter(isNote);
  expect({ events: summary.events, notifications: summary.notifications }).toEqual({ events: events.length, notifications: notes.length });
  for (const [index, { time }] of all.entries()) if (index > 0) expect(time).toBeGreaterThan(all[index - 1]!.time);
  return { events, notes };
}

test('the life of a read: the words of the kernel, a time above zero, one number per event', async () => {
  const { events, notes } = await recorded((recorder) => {
    const disk = recorder.device(NODE, 'disk', -1);
    recorder.tick();
    recorder.queue(disk, READ, -1, 0);
    recorder.wait(disk, READ);
    recorder.tick();
    recorder.issue(disk, READ);
    recorder.tick();
    recorder.complete(disk, READ, 0);
  });
  expect(events.map(({ action }) => action.toString(16))).toEqual(['190001', '190004', '119000c', '1490007', '1890008']);
  expect(events.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5]);
  expect(events[0]).toMatchObject({ sector: 8, bytes: 8192, pid: process.pid, device: 4000 * 0x10_0000, error: 0 });
  expect(events.map(({ time }) => time - events[0]!.time)).toEqual([0, 1, 2, 249_999, 499_999]);
  expect(events[0]!.time).toBeGreaterThanOrEqual(1e9);
  expect(notes.map(({ action }) => action - 0x0400_0000)).toEqual([1, 0, 2]);
  expect(notes[1]!.pdu.toString('latin1').replace(/\0+$/, '')).toBe('quiesce');
  expect(notes[2]!.pdu.toString().trimEnd()).toBe('quiesce device=4000,0 layer=disk driver=qcow2 node=#block1 name=/images/a b.qcow2');
});

test.each([
  ['write', 0, 'interactive', ['1a0001', '14a0007', '18a0008']],
  ['write', 1, 'interactive', ['801a0001', '814a0007', '818a0008']],
  ['write', 0, 'metadata', ['101a0001', '114a0007', '118a0008']],
  ['discard', 0, 'interactive', ['201a0001', '214a0007', '218a0008']],
  ['flush', 0, 'interactive', ['1e0001', '1450007', '1850008']],
] as const)('%s with flags %d, class %s', async (op, flags, ioClass, words) => {
  const request = { ...READ, op, flags, ioClass, ...(op === 'flush' ? { offset: 0, bytes: 0 } : {}) };
  const { events } = await recorded((recorder) => {
    const disk = recorder.device(NODE, 'disk', -1);
    recorder.queue(disk, request, -1, 0);
    recorder.issue(disk, request);
    recorder.complete(disk, request, 5);
  });
  expect(events.map(({ action }) => action.toString(16))).toEqual(words);
  expect(events[2]!.error).toBe(0x1_0000 - 5);
});

test('a remap names the layer above, most significant byte first, and stands before its request', async () => {
  const { events } = await recorded((recorder) => {
    const file = recorder.device(FILE, 'file', -1);
    const data = recorder.device(NODE, 'data', file);
    recorder.queue(file, READ, data, 2 ** 45 + 1024);
  });
  expect(events.map(({ action }) => action.toString(16))).toEqual(['19000f', '190001']);
  expect(events[0]!.pdu.readUInt32BE(0)).toBe(4000 * 0x10_0000 + 1);
  expect(events[0]!.pdu.readUInt32BE(4)).toBe(4000 * 0x10_0000 + 3);
  expect(Number(events[0]!.pdu.readBigUInt64BE(8))).toBe(2 ** 36 + 2);
});

test('sectors that cannot tell the range, and operations without a word, are told exactly before', async () => {
  const task = { name: 'backup b0', number: 7, cause: '' };
  const { events, notes } = await recorded((recorder) => {
    const disk = recorder.device(NODE, 'disk', -1);
    recorder.queue(disk, { ...READ, op: 'write', offset: 2 ** 41 + 100, bytes: 20_480, cause: 'rmw', task }, -1, 0);
    recorder.queue(disk, { ...READ, id: 2, op: 'write-zeroes', offset: 0, bytes: 2 ** 33 }, -1, 0);
  });
  expect(events.map(({ sector, bytes, pid }) => [sector, bytes, pid])).toEqual([[2 ** 32, 41 * 512, 5_000_007], [0, 2 ** 32 - 512, process.pid]]);
  expect(notes.slice(2).map(({ pdu }) => pdu.toString('latin1').replace(/[\0 ]+$/, ''))).toEqual([
    'quiesce device=4000,0 layer=disk driver=qcow2 node=#block1 name=/images/a b.qcow2',
    'backup b0', 'quiesce process=5000007 name=backup b0',
    'quiesce cause=rmw offset=2199023255652 bytes=20480',
    'quiesce op=write-zeroes offset=0 bytes=8589934592',
  ]);
});

test('what finds no room is counted, and told in the trace', async () => {
  let now = 0;
  const recorder = new TraceRecorder(tmp('full'), { ringBytes: 1024 * 1024, now: () => now++ });
  const disk = recorder.device(NODE, 'disk', -1);
  const many = 40_000;
  for (let i = 0; i < many; i++) recorder.issue(disk, READ);
  const before = recorder.summary;
  expect(before.dropped).toBeGreaterThan(many / 3);
  expect(before.events + before.dropped).toBe(many);
  while (recorder.summary.bytes < 900_000) await new Promise((resolve) => { setTimeout(resolve, 5); });
  // the first that finds room again, and the one before which the loss is told
  recorder.queue(disk, READ, -1, 0);
  recorder.queue(disk, READ, -1, 0);
  const after = await recorder.stop();
  const all = records(after.files);
  expect(all.filter(({ pdu }) => pdu.toString().startsWith('quiesce dropped=')).map(({ pdu }) => pdu.toString().trimEnd())).toEqual([`quiesce dropped=${before.dropped}`]);
  expect(all.at(-1)!.sequence).toBe(many + 2);
  expect(all.length).toBe(after.events + after.notifications);
});

test('a trace that cannot be made is refused in one sentence', () => {
  expect(() => new TraceRecorder(tmp('no/such/folder/t'))).toThrow(/^Could not make the trace '.*t\.blktrace\.0': /);
});
