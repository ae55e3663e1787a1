/** The copy engine between files and exports, compared with the peers' own tools. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockNode, copyImage, copyNode, MemoryDriver, Random } from '../../src/index.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();
const MiB = 1024 * 1024;
const uri = (socket: string): string => `nbd+unix:///?socket=${socket}`;

/** Data, zeros written as data, holes, and an odd end. */
function makeSource(bytes = 24 * MiB + 1536): Buffer {
  const data = Buffer.alloc(bytes);
  const random = new Random(7);
  for (let at = 0; at < bytes; at += MiB) if (random.chance(0.5)) random.fill(data.subarray(at, Math.min(bytes, at + 1 + random.below(MiB))));
  writeFileSync(tmp('source'), data);
  return data;
}

function expectFile(path: string, data: Buffer): void {
  expect(Buffer.compare(readFileSync(path), data)).toBe(0);
}

peers('qemu-nbd', 'qemu-img')('copying', () => {
  test('export to file, file to export, export to export, all equal and sparse', async () => {
    const data = makeSource();
    await start('qemu-nbd', qemuNbdArgs(tmp('s1'), tmp('source'), '-r'), tmp('s1'));
    const done: number[] = [];
    const result = await copyImage(uri(tmp('s1')), tmp('local'), { onProgress: (bytes, total) => { done.push(bytes / total); } });
    expect(result).toMatchObject({ bytes: data.byteLength });
    expect(result.copied + result.zeroed).toBe(data.byteLength);
    expectFile(tmp('local'), data);
    expect(statSync(tmp('local')).blocks * 512).toBeLessThan(result.copied + MiB);
    expect([done.at(-1), done.every((part, index) => index === 0 || part >= done[index - 1]!)]).toEqual([1, true]);

    // what a target held before must be gone where the source has zeros
    for (const [name, from] of [['t1', tmp('source')], ['t2', uri(tmp('s1'))]] as const) {
      writeFileSync(tmp(`${name}.img`), Buffer.alloc(data.byteLength, 0xaa));
      const server = await start('qemu-nbd', qemuNbdArgs(tmp(name), tmp(`${name}.img`), '--discard=unmap'), tmp(name));
      await copyImage(from, uri(tmp(name)), { sourceFormat: 'raw' });
      await server.stop();
      expectFile(tmp(`${name}.img`), data);
    }
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', tmp('t2.img'), tmp('source')]);
  });

  test('a qcow2 chain to a raw export, and an export to a new qcow2 image', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('base'), '8M']);
    await runOk('qemu-io', ['-c', 'write -P 1 0 3M', tmp('base')]);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('base'), '-F', 'qcow2', tmp('top')]);
    await runOk('qemu-io', ['-c', 'write -P 2 1M 4M', '-c', 'write -z 0 512k', tmp('top')]);
    writeFileSync(tmp('target'), Buffer.alloc(8 * MiB, 0xaa));
    await start('qemu-nbd', qemuNbdArgs(tmp('t'), tmp('target')), tmp('t'));
    await copyImage(tmp('top'), uri(tmp('t')), { connections: 1 });
    await runOk('qemu-img', ['compare', '-F', 'raw', tmp('top'), uri(tmp('t'))]);
    await copyImage(uri(tmp('t')), tmp('back'), { targetFormat: 'qcow2' });
    await runOk('qemu-img', ['compare', '-f', 'qcow2', tmp('back'), tmp('top')]);
    await runOk('qemu-img', ['check', '-q', tmp('back')]);
    expect(statSync(tmp('back')).blocks * 512).toBeLessThan(6 * MiB);
  });

  test('too small a target is refused before a byte is written, and an export is never made', async () => {
    const data = makeSource(MiB);
    writeFileSync(tmp('small'), Buffer.alloc(MiB - 512, 0xaa));
    await start('qemu-nbd', qemuNbdArgs(tmp('t'), tmp('small')), tmp('t'));
    await expect(copyImage(tmp('source'), uri(tmp('t')), { sourceFormat: 'raw' })).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    expectFile(tmp('small'), Buffer.alloc(MiB - 512, 0xaa));
    await expect(copyImage(tmp('source'), uri(tmp('nobody')), { sourceFormat: 'raw' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(data.byteLength).toBe(MiB);
  });
});

peers('nbdkit', 'nbdcopy')('copying from and to nbdkit', () => {
  test('what nbdcopy copies, we copy; a target without zeroes or block status too', async () => {
    const data = makeSource(6 * MiB);
    for (const [name, filters] of [['full', []], ['bare', ['--no-sr', '--filter=nozero', '--filter=noextents', '--filter=nocache', '--filter=noparallel']]] as const) {
      writeFileSync(tmp(`${name}.img`), Buffer.alloc(data.byteLength, 0xbb));
      await start('nbdkit', nbdkitArgs(tmp(name), ...filters, 'file', tmp(`${name}.img`)), tmp(name));
      await copyImage(tmp('source'), uri(tmp(name)), { sourceFormat: 'raw' });
      expectFile(tmp(`${name}.img`), data);
      expect((await run('nbdcopy', [uri(tmp(name)), tmp(`${name}.back`)])).code).toBe(0);
      expectFile(tmp(`${name}.back`), data);
    }
  });

  test('an error of either side ends it, and so does its signal', async () => {
    makeSource(4 * MiB);
    await start('nbdkit', nbdkitArgs(tmp('bad'), '--filter=error', 'memory', '64M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=20%'), tmp('bad'));
    const random = Buffer.alloc(32 * MiB, 1);
    writeFileSync(tmp('source'), random);
    await expect(copyImage(tmp('source'), uri(tmp('bad')), { sourceFormat: 'raw' })).rejects.toMatchObject({ code: 'NO_SPACE' });
    await start('nbdkit', nbdkitArgs(tmp('slow'), '--filter=delay', 'memory', '64M', 'delay-write=50ms'), tmp('slow'));
    const stop = new AbortController();
    const copying = copyImage(tmp('source'), uri(tmp('slow')), { sourceFormat: 'raw', signal: stop.signal, requests: 2 });
    setTimeout(() => stop.abort(), 120);
    await expect(copying).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

test('the number of requests in flight and the size of chunks change nothing', async () => {
  const source = new BlockNode({ name: 'source', driver: new MemoryDriver({ bytes: 3 * MiB + 777, growable: false }) });
  await source.write(100_000, new Uint8Array(1_000_000).fill(3));
  for (const options of [{ requests: 1 }, { requests: 50, chunkBytes: 65_536 }, { sparseBytes: 0 }, { chunkBytes: 4096, sparseBytes: 512 }, { targetIsZero: true }]) {
    const target = new BlockNode({ name: 'target', driver: new MemoryDriver({ bytes: 3 * MiB + 777, growable: false }) });
    await copyNode(source, target, options);
    const [a, b] = [new Uint8Array(3 * MiB + 777), new Uint8Array(3 * MiB + 777)];
    await source.read(0, a);
    await target.read(0, b);
    expect(Buffer.compare(a, b)).toBe(0);
  }
});
