/** What QMP tells of a disk that fails: nothing of the requests of NBD clients (no BLOCK_IO_ERROR), and QEMU's sentences of a resize. */
import { rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourDaemonTranscript, theirTranscript, type Transcript } from '../support/transcript.js';

const tmp = useTmp();

async function expectSame(script: () => Promise<Transcript>): Promise<string> {
  const theirs = await theirTranscript(await script(), tmp('monitor'));
  const ours = await ourDaemonTranscript(await script(), tmp('monitor'));
  expect(ours.slice(2)).toEqual(theirs.slice(2));
  return theirs.join('\n');
}

async function node(format: string, inject: readonly object[]): Promise<string> {
  await Promise.all(['disk', 'nbd'].map((name) => rm(tmp(name), { force: true })));
  await runOk('qemu-img', ['create', '-q', '-f', format, ...(format === 'qcow2' ? ['-o', 'cluster_size=4k'] : []), tmp('disk'), '8M']);
  await runOk('qemu-io', ['-f', format, '-c', 'write 0 8M', tmp('disk')]);
  const tree = { driver: format, 'node-name': 'n', file: { driver: 'blkdebug', image: { driver: 'file', filename: tmp('disk') }, 'inject-error': inject } };
  return `{"execute":"blockdev-add","arguments":${JSON.stringify(tree)}}`;
}

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('as qemu-storage-daemon', () => {
  test('an export whose disk fails brings no event', async () => {
    const told = await expectSame(async () => ({
      ...negotiated(
        await node('raw', ['write', 'flush', 'discard'].map((iotype) => ({ event: 'none', iotype, errno: iotype === 'write' ? 28 : 5 }))),
        `{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"${tmp('nbd')}"}}}}`,
        '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"n","writable":true}}',
        '{"execute":"query-block-exports"}',
      ),
      untilReply: true,
      failing: true,
      before: {
        4: async () => {
          const { stdout, stderr } = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', '-c', 'flush', `nbd+unix:///n?socket=${tmp('nbd')}`]);
          expect(stdout + stderr).toContain('write failed: No space left on device');
        },
      },
    }));
    expect(told).not.toContain('BLOCK_IO_ERROR');
  });

  test.each([['l1_shrink_write_table', 'Failed to reduce'], ['l1_grow_alloc_table', 'Failed to grow']])('a resize that fails at %s', async (event, sentence) => {
    const size = event.includes('grow') ? 2 ** 30 : 2 ** 20;
    const told = await expectSame(async () => negotiated(await node('qcow2', [{ event, errno: 5, once: true }]), `{"execute":"block_resize","arguments":{"node-name":"n","size":${size}}}`));
    expect(told).toContain(sentence);
  });
});
