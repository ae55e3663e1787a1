/** qcow2 over a raw node: the image grows where the raw node is as long as its file, and not in a window of fixed size. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, openBlockdev } from '../../src/index.js';
import { discard, flush, read, underOurs, underQemu, write, zero, type IoCommand, type Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const COMMANDS: readonly IoCommand[] = [write(0, 64 * KiB, 1), zero(64 * KiB, 100 * KiB), write(4 * MiB + 512, 300 * KiB, 2), flush, discard(0, 64 * KiB), write(9 * MiB, MiB, 3), read(9 * MiB, MiB, 3), read(4 * MiB + 512, 300 * KiB, 2)];

const tree = (filename: string, window: object): Tree => ({ driver: 'qcow2', discard: 'unmap', file: { driver: 'raw', ...window, file: { driver: 'file', filename } } });

/** An empty image of 16 MiB, `offset` bytes into its file, whose length is then a multiple of `bytes`. */
async function makeImages(offset: number): Promise<number> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('empty'), '16M']);
  const image = readFileSync(tmp('empty'));
  const bytes = Math.ceil(image.byteLength / 512) * 512;
  for (const who of ['theirs', 'ours']) writeFileSync(tmp(who), Buffer.concat([Buffer.alloc(offset, 7), image, Buffer.alloc(bytes - image.byteLength)]));
  return bytes;
}

async function expectSame(window: object): Promise<void> {
  const name = (who: string): string => `json:${JSON.stringify(tree(tmp(who), window))}`;
  await runOk('qemu-img', ['check', '-q', name('ours')]);
  await runOk('qemu-img', ['compare', '-q', name('ours'), name('theirs')]);
}

peers('qemu-io', 'qemu-img')('qcow2 on raw against qemu-io', () => {
  test.each([[0], [1536]])('grows from offset %i on', async (offset) => {
    await makeImages(offset);
    const window = offset === 0 ? {} : { offset };
    expect(await underOurs(tree(tmp('ours'), window), COMMANDS)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok']);
    await underQemu(tree(tmp('theirs'), window), COMMANDS);
    await expectSame(window);
    expect(readFileSync(tmp('ours')).subarray(0, offset).every((byte) => byte === 7)).toBe(true);
  });

  test('does not in a window of fixed size', async () => {
    const size = await makeImages(0);
    const expected = await underQemu(tree(tmp('theirs'), { size }), [write(0, 64 * KiB, 1)]);
    expect(expected).toEqual(['No space left on device']);
    expect(await underOurs(tree(tmp('ours'), { size }), [write(0, 64 * KiB, 1)])).toEqual(expected);
    expect(statSync(tmp('ours')).size).toBe(size);
    await expectSame({ size });
  });

  test('what others do with the raw node ends where the image does', async () => {
    await makeImages(0);
    const graph = new BlockGraph();
    const raw = await openBlockdev(graph, { driver: 'raw', 'node-name': 'raw', file: { driver: 'file', filename: tmp('ours') } });
    const empty = raw.length();
    await expect(raw.write(empty, new Uint8Array(512))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    const image = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'image', file: 'raw' });
    await image.write(0, new Uint8Array(64 * KiB).fill(5));
    expect(raw.length()).toBeGreaterThanOrEqual(empty + 64 * KiB);
    await graph.remove('image');
    const grown = raw.length();
    await expect(raw.write(grown, new Uint8Array(512))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    await graph.remove('raw');
    expect((await run('qemu-io', ['-r', '-c', `read -P 5 0 ${64 * KiB}`, tmp('ours')])).stdout).not.toContain('failed');
  });
});
