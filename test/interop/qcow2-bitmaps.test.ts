/** Persistent bitmaps, which we do not keep up to date: our first write clears the autoclear bit that vouches for them. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { openImage } from '../../src/index.js';
import { qemuFindsNothing, qemuInfo, qemuReadsAs, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const AUTOCLEAR_LOW_BYTE = 95;
const SIZE = 64 * 1024 * 1024;

async function withBitmap(): Promise<string> {
  const path = tmp('image.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE)]);
  await runOk('qemu-img', ['bitmap', '-f', 'qcow2', '--add', path, 'changes']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x12 1M 2M', path]); // sets bits, so that bitmap data is stored
  return path;
}

const autoclear = (path: string): number => readFileSync(path)[AUTOCLEAR_LOW_BYTE]!;

peers('qemu-img', 'qemu-io')('an image with a persistent bitmap', () => {
  test('is left as it is by opening, reading and checking', async () => {
    const path = await withBitmap();
    expect(autoclear(path)).toBe(1);
    const before = readFileSync(path);
    await weFindNothing(path); // the bitmap's clusters are counted, or they would be leaks
    await withImage(path, { readOnly: true }, (node) => node.read(0, Buffer.alloc(512)));
    await (await openImage(path)).close(); // for writing, but nothing was written
    expect(readFileSync(path).equals(before)).toBe(true);
    expect((await qemuInfo(path))['format-specific'].data).toHaveProperty('bitmaps');
  });

  test('loses the autoclear bit with our first write; QEMU drops the bitmap and finds leaks at worst', async () => {
    const path = await withBitmap();
    await withImage(path, {}, (node) => node.write(5 * 1024 * 1024, Buffer.alloc(100_000, 0x34)));
    expect(autoclear(path)).toBe(0);
    expect((await qemuInfo(path))['format-specific'].data).not.toHaveProperty('bitmaps');
    const twin = new Twin(tmp('twin.raw'), SIZE);
    twin.write(1024 * 1024, Buffer.alloc(2 * 1024 * 1024, 0x12));
    twin.write(5 * 1024 * 1024, Buffer.alloc(100_000, 0x34));
    await qemuReadsAs(path, twin);
    const LEAKS_ONLY = 3;
    expect([0, LEAKS_ONLY]).toContain((await run('qemu-img', ['check', '-f', 'qcow2', path])).code);
    await runOk('qemu-img', ['check', '-q', '-r', 'leaks', '-f', 'qcow2', path]);
    await qemuFindsNothing(path);
    await weFindNothing(path);
  });

  test('whose bitmap is not vouched for: our repair frees its clusters, as QEMU’s does', async () => {
    const path = await withBitmap();
    await withImage(path, {}, (node) => node.write(0, Buffer.alloc(512, 1)));
    const result = await withImage(path, { forCheck: true }, (node) => node.driver.check!({ repair: 'leaks' }));
    expect(result).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(result.leaksFixed).toBeGreaterThan(0);
    const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', path]);
    expect({ code, stdout: stdout.split('\n')[0] }).toEqual({ code: 0, stdout: 'No errors were found on the image.' });
    expect(stderr).toContain('all bitmaps are now considered inconsistent');
  });
});
