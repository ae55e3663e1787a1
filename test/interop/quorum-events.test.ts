/** What quorum tells of children that fail or disagree: qemu-storage-daemon's events and ours, for the same requests. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, openBlockdev, type QuorumEvent } from '../../src/index.js';
import { isThere } from '../support/listening.js';
import type { Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SIZE = 65536;

/** Child b is wrong in its second sector, all differ in the ninth, c fails flushes. */
function tree(): Tree {
  const child = (name: string, index: number): Tree => {
    const content = Buffer.alloc(SIZE);
    content.fill(index, 4096, 4608);
    if (index === 1) content.fill(7, 512, 1024);
    writeFileSync(tmp(name), content);
    const file: Tree = { driver: 'file', filename: tmp(name) };
    return { driver: 'raw', 'node-name': name, file: index === 2 ? { driver: 'blkdebug', 'inject-error': [{ event: 'none', iotype: 'flush' }], image: file } : file };
  };
  return { driver: 'quorum', 'node-name': 'top', 'vote-threshold': 2, children: ['a', 'b', 'c'].map(child) };
}

/** Keys sorted: in which order they are printed is a matter of QMP. */
const normal = ({ event, data }: { readonly event: string; readonly data: object }): string => `${event} ${JSON.stringify(Object.fromEntries(Object.entries(data).toSorted(([a], [b]) => (a < b ? -1 : 1))))}`;

async function inQemu(): Promise<string[]> {
  const child = start('qemu-storage-daemon', [
    '--chardev', 'stdio,id=c', '--monitor', 'c', '--blockdev', JSON.stringify(tree()),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('socket')}`, '--export', 'type=nbd,id=e,node-name=top,writable=on',
  ]);
  let output = '';
  child.stdout!.on('data', (data: Buffer) => { output += data.toString(); });
  try {
    child.stdin!.write('{"execute": "qmp_capabilities"}\n');
    for (let wait = 0; !isThere(tmp('socket')) || !output.includes('return'); wait++) {
      if (wait > 1000) throw new Error('qemu-storage-daemon did not start');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await runOk('qemu-io', ['-f', 'raw', '-c', 'read 0 1536', '-c', 'write 8192 512', '-c', 'flush', `nbd+unix:///top?socket=${tmp('socket')}`]);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'read 4096 1024', `nbd+unix:///top?socket=${tmp('socket')}`]).catch(() => '');
    for (let wait = 0; !output.includes('QUORUM_FAILURE') && wait < 300; wait++) await new Promise((resolve) => setTimeout(resolve, 10));
  } finally {
    await kill(child);
  }
  return output.split('\n').filter((line) => line.includes('QUORUM')).map((line) => normal(JSON.parse(line) as QuorumEvent));
}

async function inOurs(): Promise<string[]> {
  const events: string[] = [];
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, tree(), { onEvent: (event) => events.push(normal(event)) });
  await node.read(0, new Uint8Array(1536));
  await node.write(8192, new Uint8Array(512)); // without a write QEMU flushes nothing
  await node.flush();
  await expect(node.read(4096, new Uint8Array(1024))).rejects.toMatchObject({ errno: 'EIO' });
  await expect(graph.remove('top')).rejects.toMatchObject({ errno: 'EIO' }); // the child whose flushes fail has its last one, too
  return events;
}

peers('qemu-storage-daemon', 'qemu-io')('quorum events against qemu-storage-daemon', () => {
  test('a child outvoted, a child that fails, no majority', async () => {
    const expected = await inQemu();
    expect(new Set(await inOurs())).toEqual(new Set(expected)); // a client may flush more often
    expect(new Set(expected).size).toBe(3);
  });
});
