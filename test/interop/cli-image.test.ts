/** `image create`, `info` and `check` say what qemu-img says, in JSON and by exit code. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk } from '../support/cli.js';
import { drive, withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function sameInfo(image: string, ...options: string[]): Promise<void> {
  const theirs: unknown = JSON.parse(await runOk('qemu-img', ['info', '--output=json', ...options, image]));
  for (const json of [['--json'], ['--output', 'json']]) {
    expect(JSON.parse(await quiesceOk(['image', 'info', ...json, ...options, image]))).toEqual(theirs);
  }
}

/** Exit codes and counts agree; returns the exit code. */
async function sameCheck(image: string, ...options: string[]): Promise<number> {
  const theirs = await run('qemu-img', ['check', '--output=json', ...options, image]);
  const ours = await quiesce(['image', 'check', '--json', ...options, image]);
  expect(ours.code).toBe(theirs.code);
  if (theirs.stdout !== '') expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout));
  return ours.code!;
}

const MATRIX: readonly (readonly [string, string, ...string[]])[] = [
  ['a default image', '64M'],
  ['an empty disk', '0'],
  ['odd sizes', '1000001'],
  ['version 2', '64M', '-o', 'compat=0.10'],
  ['small clusters', '3M', '-o', 'cluster_size=512'],
  ['large clusters and wide refcounts', '5G', '-o', 'cluster_size=2M,refcount_bits=64'],
  ['narrow refcounts', '64M', '-o', 'refcount_bits=1'],
  ['lazy refcounts', '64M', '-o', 'lazy_refcounts=on'],
  ['preallocated metadata', '64M', '-o', 'preallocation=metadata'],
  ['8 TiB', '8T'],
];

peers('qemu-img', 'qemu-io')('an image', () => {
  test.each(MATRIX)('of qemu-img and of ours is told and checked alike: %s', async (_what, size, ...options) => {
    const theirs = await makeImage(tmp('theirs.qcow2'), size, ...options);
    const ours = tmp('ours.qcow2');
    await quiesceOk(['image', 'create', '-q', '-f', 'qcow2', ours, size, ...options]);
    for (const image of [theirs, ours]) {
      await sameInfo(image);
      expect(await sameCheck(image)).toBe(0);
    }
  });

  test('with snapshots, data and a backing file is told alike, with its chain', async () => {
    const base = await makeImage(tmp('base.qcow2'));
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 3M', base]);
    await runOk('qemu-img', ['snapshot', '-c', 'ümlaut "quoted"', base]);
    await quiesceOk(['snapshot', 'create', base, 'ram', '--vm-state', '-', '--vm-clock', '5000000001', '--icount', '7'], { input: 'opaque' });
    await quiesceOk(['image', 'create', '-q', '-b', 'base.qcow2', '-F', 'qcow2', tmp('top.qcow2')]);
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('disk.raw'), '1M']);
    for (const image of [base, tmp('top.qcow2'), tmp('disk.raw')]) await sameInfo(image);
    await sameInfo(tmp('top.qcow2'), '--backing-chain');
    await sameInfo(base, '-f', 'raw');
    for (const image of [base, tmp('top.qcow2')]) expect(await sameCheck(image)).toBe(0);
  });

  test('in use by a machine is told with -U only', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await withMachine(tmp('qmp'), drive(image), async () => {
      await expectRefused(['image', 'info', image], 'Failed to get shared "write" lock');
      await expectRefused(['image', 'check', image], 'Failed to get shared "write" lock');
      await expectRefused(['image', 'check', '-r', 'leaks', image], 'Failed to get "write" lock');
      await expectRefused(['image', 'create', image, '1M'], 'Failed to get "write" lock');
      await sameInfo(image, '-U');
      expect(await sameCheck(image, '-U')).toBe(0);
    });
  });
});

peers('qemu-img', 'qemu-io')('image check', () => {
  test('ends with 3 where clusters leaked, and gives them back with -r leaks', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 256k', image]);
    const bytes = readFileSync(image);
    // the L1 entry of the data is lost: four clusters of data and the L2 table leak
    bytes.fill(0, Number(bytes.readBigUInt64BE(40)), Number(bytes.readBigUInt64BE(40)) + 8);
    writeFileSync(image, bytes);
    writeFileSync(tmp('copy.qcow2'), bytes);
    expect(await sameCheck(image)).toBe(3);
    expect((await quiesce(['image', 'check', image])).stdout).toContain('5 leaked clusters were found on the image.');
    expect(await quiesce(['image', 'check', '-q', image])).toMatchObject({ code: 3, stdout: '' });
    expect(readFileSync(image).equals(bytes)).toBe(true);
    const repaired = JSON.parse(await quiesceOk(['image', 'check', '-r', 'leaks', '--json', image])) as unknown;
    const theirs = JSON.parse(await runOk('qemu-img', ['check', '-r', 'leaks', '--output=json', tmp('copy.qcow2')])) as object;
    expect(repaired).toEqual({ ...theirs, filename: image });
    expect(await sameCheck(image)).toBe(0);
  });

  test('ends with 2 where the image is corrupt, and repairs no corruption', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 256k', image]);
    const bytes = readFileSync(image);
    // the first data cluster loses its refcount
    const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
    const l2 = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0xff_ffff_ffff_fe00n);
    const data = Number(bytes.readBigUInt64BE(l2) & 0xff_ffff_ffff_fe00n);
    bytes.writeUInt16BE(0, block + 2 * (data / 65_536));
    writeFileSync(image, bytes);
    expect(await sameCheck(image)).toBe(2);
    expect((await quiesce(['image', 'check', '-r', 'leaks', image])).code).toBe(2);
  });

  test('ends with 63 where the format has no checks, and with 1 where it cannot look', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('disk.raw'), '1M']);
    expect(await sameCheck(tmp('disk.raw'))).toBe(63);
    expect(await sameCheck(tmp('missing'))).toBe(1);
    expect((await quiesce(['image', 'check', '--no-such', tmp('disk.raw')])).code).toBe(1);
  });
});
