/** Copies from server to server, whose data stays in the kernel: equal content, errors in the middle, servers that go away. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { copyImage, Random } from '../../src/index.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();
const KiB = 1024;
const MiB = 1024 * KiB;
const uri = (name: string): string => `nbd+unix:///?socket=${tmp(name)}`;

afterEach(() => { delete process.env['QUIESCE_NO_SPLICE']; });

/** Runs of data, of zeros that are written as data, and of data with zeros in it, of all lengths. */
function makeSource(bytes: number, seed: number): Buffer {
  const content = Buffer.alloc(bytes);
  const random = new Random(seed);
  for (let at = 0; at < bytes;) {
    const end = Math.min(bytes, at + 1 + random.below([100, 5000, 70_000, 2 * MiB][random.below(4)]!));
    if (random.chance(0.7)) random.fill(content.subarray(at, end));
    at = end;
  }
  writeFileSync(tmp('source'), content);
  return content;
}

peers('qemu-nbd')('between two qemu-nbd', () => {
  test.each([[1, {}], [2, { chunkBytes: 256 * KiB, requests: 3 }], [3, { chunkBytes: 64 * KiB, sparseBytes: 4 * KiB, requests: 40, connections: 1 }], [4, { sparseBytes: 0 }],
    [5, { chunkBytes: 4 * MiB, requests: 2 }], [6, {}]] as const)('random content is the same with and without pipes (%p, %p)', async (seed, options) => {
    const content = makeSource(9 * MiB + 1536, seed);
    await start('qemu-nbd', qemuNbdArgs(tmp('from'), tmp('source'), '-r'), tmp('from'));
    const results: object[] = [];
    for (const turn of ['pipe', 'memory']) {
      writeFileSync(tmp(turn), Buffer.alloc(content.byteLength, 0xaa));
      const server = await start('qemu-nbd', qemuNbdArgs(tmp('to'), tmp(turn), '--discard=unmap'), tmp('to'));
      if (turn === 'memory') process.env['QUIESCE_NO_SPLICE'] = '1';
      results.push(await copyImage(uri('from'), uri('to'), options));
      await server.stop();
      expect(Buffer.compare(readFileSync(tmp(turn)), content)).toBe(0);
    }
    expect(results[0]).toEqual(results[1]);
    expect(statSync(tmp('pipe')).blocks).toBe(statSync(tmp('memory')).blocks);
  });

  test('large runs of zeros are found after much data, and small ones from then on', async () => {
    const content = Buffer.alloc(56 * MiB, 7);
    content.fill(0, 40 * MiB, 48 * MiB).fill(0, 49 * MiB, 49 * MiB + 128 * KiB);
    writeFileSync(tmp('source'), content);
    await start('qemu-nbd', qemuNbdArgs(tmp('from'), tmp('source'), '-r'), tmp('from'));
    writeFileSync(tmp('target'), Buffer.alloc(content.byteLength, 0xaa));
    await start('qemu-nbd', qemuNbdArgs(tmp('to'), tmp('target'), '--discard=unmap'), tmp('to'));
    const { copied, zeroed } = await copyImage(uri('from'), uri('to'), { requests: 1 });
    expect([copied, zeroed]).toEqual([48 * MiB - 128 * KiB, 8 * MiB + 128 * KiB]);
    expect(Buffer.compare(readFileSync(tmp('target')), content)).toBe(0);
  });
});

peers('nbdkit', 'qemu-nbd')('from and to nbdkit', () => {
  test.each([[['--filter=noparallel']], [['--no-sr']], [['--filter=nozero', '--filter=noextents']]])('with %p', async (filters) => {
    const content = makeSource(6 * MiB, 9);
    await start('nbdkit', nbdkitArgs(tmp('from'), ...filters, 'file', tmp('source')), tmp('from'));
    writeFileSync(tmp('target'), Buffer.alloc(content.byteLength, 0xbb));
    await start('nbdkit', nbdkitArgs(tmp('to'), ...filters, 'file', tmp('target')), tmp('to'));
    await copyImage(uri('from'), uri('to'));
    expect(Buffer.compare(readFileSync(tmp('target')), content)).toBe(0);
  });

  test('a failing read or write ends the copy with its error', async () => {
    writeFileSync(tmp('source'), Buffer.alloc(64 * MiB, 1));
    writeFileSync(tmp('target'), Buffer.alloc(64 * MiB));
    await start('nbdkit', nbdkitArgs(tmp('from'), '--filter=error', 'file', tmp('source'), 'error-pread=EPERM', 'error-pread-rate=20%'), tmp('from'));
    await start('qemu-nbd', qemuNbdArgs(tmp('to'), tmp('target')), tmp('to'));
    await expect(copyImage(uri('from'), uri('to'))).rejects.toMatchObject({ errno: 'EPERM' });
    await start('qemu-nbd', qemuNbdArgs(tmp('good'), tmp('source'), '-r'), tmp('good'));
    await start('nbdkit', nbdkitArgs(tmp('full'), '--filter=error', 'file', tmp('target'), 'error-pwrite=ENOSPC', 'error-pwrite-rate=20%'), tmp('full'));
    await expect(copyImage(uri('good'), uri('full'))).rejects.toMatchObject({ code: 'NO_SPACE' });
  });

  test('a server that is lost in the middle ends the copy, whichever it is, and so does the signal', async () => {
    writeFileSync(tmp('source'), Buffer.alloc(64 * MiB, 1));
    writeFileSync(tmp('target'), Buffer.alloc(64 * MiB));
    for (const lost of ['from', 'to']) {
      const servers = {
        from: await start('nbdkit', nbdkitArgs(tmp('from'), '--filter=rate', 'file', tmp('source'), 'rate=400M'), tmp('from')),
        to: await start('nbdkit', nbdkitArgs(tmp('to'), '--filter=rate', 'file', tmp('target'), 'rate=400M'), tmp('to')),
      };
      const copying = copyImage(uri('from'), uri('to'), { onProgress: () => { servers[lost as 'from' | 'to'].process.kill('SIGKILL'); } });
      await expect(copying).rejects.toMatchObject({ errno: expect.stringMatching(/EIO|EPIPE|ECONNRESET|ENOENT|ECONNREFUSED/) });
      await servers.from.stop('SIGKILL');
      await servers.to.stop('SIGKILL');
    }
    await start('nbdkit', nbdkitArgs(tmp('from'), 'file', tmp('source')), tmp('from'));
    await start('nbdkit', nbdkitArgs(tmp('slow'), '--filter=delay', 'file', tmp('target'), 'delay-write=50ms'), tmp('slow'));
    const stop = new AbortController();
    await expect(copyImage(uri('from'), uri('slow'), { signal: stop.signal, requests: 2, onProgress: () => { stop.abort(); } })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});
