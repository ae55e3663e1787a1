/** The preallocate filter under an image that grows: no room is left behind, and what QEMU reads is what was written. */
import { statSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { flush, read, underOurs, underQemu, write, zero, type IoCommand, type Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;

peers('qemu-io', 'qemu-img')('preallocate against qemu-io', () => {
  test('the file is as long while it is open, and afterwards', async () => {
    const tree = (filename: string): Tree => ({
      driver: 'qcow2', file: { driver: 'preallocate', 'prealloc-align': 64 * KiB, 'prealloc-size': 1024 * KiB, file: { driver: 'file', filename } },
    });
    for (const who of ['theirs', 'ours']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(who), '16M']);
    const during: number[] = [];
    const look: IoCommand = { text: 'flush', run: async () => during.push(statSync(tmp('ours')).size) };
    const commands = [write(0, 64 * KiB, 1), look, zero(64 * KiB, 64 * KiB), write(1024 * KiB, 300 * KiB, 2), read(1024 * KiB, 300 * KiB, 2), flush];
    const expected = await underQemu(tree(tmp('theirs')), commands);
    expect((await underOurs(tree(tmp('ours')), commands)).filter((outcome) => outcome !== 'ok')).toEqual(expected.filter((outcome) => outcome !== 'ok'));
    expect(during[0]! % (64 * KiB)).toBe(0);
    expect(during[0]!).toBeGreaterThan(1024 * KiB);
    expect(statSync(tmp('ours')).size).toBeLessThan(1024 * KiB);
    await runOk('qemu-img', ['check', '-q', tmp('ours')]);
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', tmp('ours'), tmp('theirs')]);
  });

  test('a raw file that is written to its end stays as long', async () => {
    writeFileSync(tmp('ours'), Buffer.alloc(100 * KiB));
    const tree: Tree = { driver: 'preallocate', file: { driver: 'file', filename: tmp('ours') } };
    expect(await underOurs(tree, [write(50 * KiB, 50 * KiB, 1), read(50 * KiB, 50 * KiB, 1)])).toEqual(['ok', 'ok']);
    expect(statSync(tmp('ours')).size).toBe(100 * KiB);
  });
});
