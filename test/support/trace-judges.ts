/** The programs that judge our recordings: blkparse, btt, blkrawverify, iowatcher, and fio, which replays them onto nothing. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from '@jest/globals';
import { buildIoTable, openTrace, type IoTable } from '../../src/index.js';
import { expectSameText } from './blkparse.js';
import { run, runOk } from './run.js';

/** How often an action occurs, by `4000,0 QR`: the device, blkparse's letter, and whether it is a read, write, discard or flush. */
export type ActionCounts = Readonly<Record<string, number>>;

export interface Judged {
  readonly counts: ActionCounts;
  readonly table: IoTable;
}

/** fio's JSON; what it says before is of its engine. */
export function fioJson(stdout: string): { readonly jobs: readonly FioJob[] } {
  return JSON.parse(stdout.slice(stdout.indexOf('{'))) as { readonly jobs: readonly FioJob[] };
}

interface FioSide { readonly total_ios: number; readonly io_bytes: number }
interface FioJob { readonly read: FioSide; readonly write: FioSide; readonly trim: FioSide; readonly sync: { readonly total_ios: number } }

/** Bytes and requests that completed on a device, of one direction, without flushes and discards. */
export function sums(table: IoTable, device: number, direction: 'read' | 'write'): { readonly total_ios: number; readonly io_bytes: number } {
  let ios = 0;
  let bytes = 0;
  const bit = direction === 'read' ? 1 : 2;
  const [other, flush, discard] = [3 - bit, 4, 0x2000];
  for (let row = 0; row < table.count; row++) {
    const category = table.category[row]!;
    const has = (flag: number): boolean => Math.floor(category / flag) % 2 === 1;
    if (table.device[row] !== device || !has(bit) || has(other) || has(flush) || has(discard) || Number.isNaN(table.completed[row]!)) continue;
    ios++;
    bytes += table.bytes[row]!;
  }
  return { total_ios: ios, io_bytes: bytes };
}

/**
 * All of them read it without a word on standard error, and count what we recorded; `trace parse` prints it as blkparse does. `name` is without
 * `.blktrace.N`; `picture`: ask iowatcher too.
 */
export async function judge(name: string, { picture = true } = {}): Promise<Judged> {
  const folder = `${name}-judged`;
  mkdirSync(folder);
  const quiet = async (program: string, args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(program, args, { cwd: folder });
    expect({ program, code, stderr }).toEqual({ program, code: 0, stderr: '' });
    return stdout;
  };
  const merged = path.join(folder, 'merged.bin');
  const parsed = await quiet('blkparse', ['-i', name, '-d', merged, '-f', '%D %a %d\n']);
  const counts = countLines(parsed);
  expect(counts).toEqual(countRecords(name));
  expect(parsed).toMatch(/Skips: 0 forward/);
  for (const options of [[], ['-s', '-a', 'issue']]) await expectSameText(['-i', path.basename(name), ...options], path.dirname(name));
  const stream = await quiet('btt', ['-i', merged]);
  expect(stream).toMatch(/Q2C +\d/);
  await quiet('blkrawverify', [name]);
  const verified = readFileSync(`${name}.verify.out`, 'latin1');
  expect(verified).toMatch(/100\.0%/);
  expect([...verified.matchAll(/(\d+) invalid/g)].map(([, bad]) => bad)).toEqual(verified.match(/Summary/g)!.map(() => '0'));
  if (picture) {
    await quiet('iowatcher', ['-t', merged, '-o', path.join(folder, 'picture.svg')]);
    expect(existsSync(path.join(folder, 'picture.svg'))).toBe(true);
  }
  await replay(folder, merged, counts);
  const table = await buildIoTable(await openTrace(name));
  expect(table.counts).toMatchObject({ withoutQueue: 0, passedOver: 0 });
  return { counts, table };
}

async function replay(folder: string, merged: string, counts: ActionCounts): Promise<void> {
  const stdout = await runOk('fio', ['--name=replay', `--read_iolog=${merged}`, '--ioengine=null', `--replay_redirect=${path.join(folder, 'nothing')}`, '--replay_no_stall=1', '--output-format=json'], { cwd: folder });
  const { read, write, trim, sync } = fioJson(stdout).jobs[0]!;
  const queued = (kind: string): number => Object.entries(counts).reduce((sum, [key, count]) => sum + (key.endsWith(` Q${kind}`) ? count : 0), 0);
  expect({ read: read.total_ios, write: write.total_ios, trim: trim.total_ios, sync: sync.total_ios })
    .toEqual({ read: queued('R'), write: queued('W'), trim: queued('D'), sync: queued('F') });
}

/** Lines of `%D %a %d`; the summary below them is no such line. */
function countLines(text: string): ActionCounts {
  const counts: Record<string, number> = {};
  for (const [, major, minor, action, what] of text.matchAll(/^ *(\d+), *(\d+) +([A-Z]+) +([A-Z]+)$/gm)) {
    const kind = what!.startsWith('F') ? 'F' : /[DRW]/.exec(what!)?.[0] ?? '?';
    const key = `${major},${minor} ${action}${kind}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

const LETTERS: Readonly<Record<number, string>> = { 1: 'Q', 2: 'M', 4: 'G', 6: 'R', 7: 'D', 8: 'C', 12: 'I', 13: 'X', 15: 'A' };

/** The records of the files, read here without any of our readers. */
function countRecords(name: string): ActionCounts {
  const counts: Record<string, number> = {};
  for (let cpu = 0; existsSync(`${name}.blktrace.${cpu}`); cpu++) {
    const all = readFileSync(`${name}.blktrace.${cpu}`);
    let at = 0;
    for (; at < all.byteLength; at += 48 + all.readUInt16LE(at + 46)) {
      expect(all.readUInt32LE(at)).toBe(0x6561_7407);
      const [low, category] = [all.readUInt16LE(at + 28), all.readUInt16LE(at + 30)];
      if (category === 0x400) continue;
      const has = (flag: number): boolean => Math.floor(category / flag) % 2 === 1;
      const device = all.readUInt32LE(at + 36);
      const kind = has(4) ? 'F' : has(0x2000) ? 'D' : has(2) ? 'W' : 'R';
      const key = `${Math.floor(device / 0x10_0000)},${device % 0x10_0000} ${LETTERS[low] ?? '?'}${kind}`;
      counts[key] = (counts[key] ?? 0) + 1;
    }
    expect(at).toBe(all.byteLength);
  }
  return counts;
}
