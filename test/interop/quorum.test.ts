/** Quorum and blkverify over the same files under qemu-io and under ours: the same outcomes, the same files afterwards. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { discard, flush, read, underOurs, underQemu, write, zero, type IoCommand, type Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const SIZE = 1024 * KiB;

/** `count` files of equal content, but for what `differ` puts into some of them. */
function files(who: string, count: number, differ: readonly (readonly [file: number, offset: number, value: number])[]): readonly string[] {
  return Array.from({ length: count }, (_, index) => {
    const content = Buffer.alloc(SIZE, 1);
    for (const [file, offset, value] of differ) if (file === index) content.fill(value, offset, offset + 4 * KiB);
    writeFileSync(tmp(`${who}${index}`), content);
    return tmp(`${who}${index}`);
  });
}

const raw = (filename: string): Tree => ({ driver: 'raw', file: { driver: 'file', filename } });

async function compare(
  count: number, differ: readonly (readonly [number, number, number])[], options: Tree, commands: readonly IoCommand[],
  child: (filename: string, index: number) => Tree = raw,
): Promise<readonly string[]> {
  const tree = (names: readonly string[]): Tree => ({ driver: 'quorum', children: names.map(child), ...options });
  const [theirs, ours] = [files('theirs', count, differ), files('ours', count, differ)];
  const expected = await underQemu(tree(theirs), commands);
  expect(await underOurs(tree(ours), commands)).toEqual(expected);
  for (const [index, name] of theirs.entries()) expect(Buffer.compare(readFileSync(name), readFileSync(ours[index]!))).toBe(0);
  return expected;
}

peers('qemu-io')('quorum against qemu-io', () => {
  const commands = [
    read(0, 4 * KiB, 1), read(4 * KiB, 4 * KiB, 1), read(16 * KiB, 4 * KiB, 1), read(0, 64 * KiB), write(4 * KiB, 4 * KiB, 7), read(4 * KiB, 4 * KiB, 7),
    zero(32 * KiB, 8 * KiB), discard(64 * KiB, 64 * KiB), read(64 * KiB, 64 * KiB, 1), write(100, 1000, 9), read(100, 1000, 9),
  ];
  // one file is wrong at 4 KiB, all three differ at 16 KiB
  const differ = [[1, 4 * KiB, 2], [0, 16 * KiB, 3], [1, 16 * KiB, 4]] as const;

  test.each<[string, number, Tree]>([
    ['two of three', 3, { 'vote-threshold': 2 }],
    ['one is enough', 3, { 'vote-threshold': 1 }],
    ['all of three', 3, { 'vote-threshold': 3 }],
    ['what was outvoted is rewritten', 3, { 'vote-threshold': 2, 'rewrite-corrupted': true }],
    ['the first child is read', 3, { 'vote-threshold': 2, 'read-pattern': 'fifo' }],
  ])('%s', async (_title, count, options) => {
    await compare(count, differ, options, commands);
  });

  test.each([1, 2, 3])('children that fail, %i of three', async (failing) => {
    const child = (filename: string, index: number): Tree => ({
      driver: 'raw', file: { driver: 'blkdebug', image: { driver: 'file', filename }, ...index < failing ? { 'inject-error': [{ event: 'none', errno: index === 0 ? 5 : 28, sector: 8 }] } : {} },
    });
    const outcomes = await compare(3, [], { 'vote-threshold': 2 }, [read(0, 4 * KiB, 1), read(4 * KiB, KiB, 1), write(4 * KiB, KiB, 3), zero(4 * KiB, KiB), read(0, 8 * KiB)], child);
    expect(outcomes.slice(1).every((outcome) => (outcome === 'ok') === (failing === 1))).toBe(true);
  });
});

peers('qemu-io', 'qemu-img')('blkverify against qemu-io', () => {
  const tree = (test: string, copy: string): Tree => ({ driver: 'blkverify', test: { driver: 'qcow2', file: { driver: 'file', filename: test } }, raw: raw(copy) });

  // write-zeroes is left out: QEMU's blkverify aborts in one
  test('goes on while the two agree', async () => {
    for (const who of ['theirs', 'ours']) {
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(`${who}.qcow2`), '1M']);
      writeFileSync(tmp(`${who}.raw`), Buffer.alloc(SIZE));
    }
    const commands = [write(100, 1000, 3), read(0, 64 * KiB), discard(0, 64 * KiB), read(0, 100 * KiB), flush];
    const expected = await underQemu(tree(tmp('theirs.qcow2'), tmp('theirs.raw')), commands);
    expect(await underOurs(tree(tmp('ours.qcow2'), tmp('ours.raw')), commands)).toEqual([...expected, 'ok']);
    expect(Buffer.compare(readFileSync(tmp('theirs.raw')), readFileSync(tmp('ours.raw')))).toBe(0);
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', tmp('ours.qcow2'), tmp('ours.raw')]);
  });

  test('ends in the words of QEMU where they do not', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('test.qcow2'), '1M']);
    writeFileSync(tmp('raw'), Buffer.alloc(SIZE).fill(1, 3000, 3001));
    copyFileSync(tmp('raw'), tmp('copy'));
    const { stderr, code } = await run('qemu-io', ['-c', 'read 2048 2048', `json:${JSON.stringify(tree(tmp('test.qcow2'), tmp('raw')))}`]);
    expect(code).toBe(1);
    const [outcome] = await underOurs(tree(tmp('test.qcow2'), tmp('copy')), [{ text: '', run: async (node) => {
      await node.read(2048, new Uint8Array(2048)).catch((error: Error) => { throw new TypeError(error.message); });
    } }]).catch((error: Error) => [error.message]);
    expect(stderr.trim()).toBe(outcome);
  });
});
