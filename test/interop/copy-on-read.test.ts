/** Reads through the copy-on-read filter, by qemu-io and by ours: the same clusters are in the overlay afterwards. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { read, underOurs, underQemu, write, type Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;

/** base: 0 … 512K and 768K … 1M; middle: 256K … 384K; top: 300K … 310K. */
async function makeChain(): Promise<void> {
  const base = Buffer.alloc(1024 * KiB, 1);
  base.fill(0, 512 * KiB, 768 * KiB);
  writeFileSync(tmp('base'), base);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('base'), '-F', 'raw', tmp('middle'), '2M']);
  await runOk('qemu-io', ['-c', 'write -P 2 256k 128k', tmp('middle')]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('middle'), '-F', 'qcow2', tmp('theirs'), '2M']);
  await runOk('qemu-io', ['-c', 'write -P 3 300k 10k', tmp('theirs')]);
  copyFileSync(tmp('theirs'), tmp('ours'));
}

function tree(filename: string, bottom: boolean): Tree {
  const middle = { driver: 'qcow2', 'node-name': 'middle', file: { driver: 'file', filename: tmp('middle') } };
  return { driver: 'copy-on-read', file: { driver: 'qcow2', file: { driver: 'file', filename }, backing: middle }, ...bottom ? { bottom: 'middle' } : {} };
}

peers('qemu-io', 'qemu-img')('copy-on-read against qemu-io', () => {
  test.each([[false], [true]])('with a bottom node: %s', async (bottom) => {
    await makeChain();
    const commands = [read(5 * KiB, 1), read(200 * KiB, 100 * KiB), read(300 * KiB, 10 * KiB, 3), write(400 * KiB, KiB, 4), read(399 * KiB, 100 * KiB), read(900 * KiB, 600 * KiB), read(1900 * KiB, 512, 0)];
    const expected = await underQemu(tree(tmp('theirs'), bottom), commands);
    expect(expected.every((outcome) => outcome === 'ok')).toBe(true);
    expect(await underOurs(tree(tmp('ours'), bottom), commands)).toEqual(expected);
    const map = async (name: string): Promise<unknown> => (JSON.parse(await runOk('qemu-img', ['map', '--output=json', '-f', 'qcow2', tmp(name)])) as readonly Readonly<Record<string, unknown>>[])
      .map(({ start, length, depth, zero, data }) => ({ start, length, depth, zero, data }));
    expect(await map('ours')).toEqual(await map('theirs'));
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', tmp('ours'), tmp('theirs')]);
    await runOk('qemu-img', ['check', '-q', tmp('ours')]);
  });
});
