/** The same commands on nodes sent to qemu-storage-daemon and to ours: replies are equal as bytes, permissions of every edge included. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourDaemonTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

type Command = readonly [name: string, args?: Readonly<Record<string, unknown>>];

/** `@/` stands for the folder of the images. */
const SCRIPTS: Readonly<Record<string, readonly Command[]>> = {
  'names, references and removal': [
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2', 'node-name': 'f0' }],
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2', 'node-name': 'f0' }],
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2', 'node-name': '#x' }],
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2', 'node-name': '0x' }],
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2' }],
    ['blockdev-add', { driver: 'file', filename: '@/a.qcow2', 'node-name': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }],
    ['blockdev-add', { driver: 'file', filename: '@/nope', 'node-name': 'n' }],
    ['blockdev-add', { driver: 'foo', filename: '@/nope', 'node-name': 'n' }],
    ['blockdev-add', { driver: 'file', filename: '@/nope', 'node-name': 'n', foo: 1 }],
    ['blockdev-add', { driver: 'qcow2', file: 'f0', 'node-name': 'q0' }],
    ['query-named-block-nodes'],
    ['query-block'],
    ['query-blockstats'],
    ['query-blockstats', { 'query-nodes': true }],
    ['blockdev-del', { 'node-name': 'f0' }],
    ['blockdev-del', { 'node-name': 'zz' }],
    ['blockdev-add', { driver: 'qcow2', file: 'zz', 'node-name': 'q1' }],
    ['blockdev-add', { driver: 'qcow2', file: 'f0', 'node-name': 'q1' }],
    ['blockdev-add', { driver: 'raw', file: 'f0', 'node-name': 'q1' }],
    ['blockdev-add', { driver: 'raw', file: 'q0', 'node-name': 'q1', 'read-only': true }],
    ['blockdev-add', { driver: 'raw', file: 'q0', 'node-name': 'q2', 'read-only': false }],
    ['blockdev-add', { driver: 'raw', file: 'q0', 'node-name': 'q3', 'read-only': false }],
    ['blockdev-add', { driver: 'raw', file: 'q0', 'node-name': 'q0', 'read-only': false }],
    ['blockdev-del', { 'node-name': 'q0' }],
    ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }],
    ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'q0', writable: true }],
    ['blockdev-del', { 'node-name': 'q0' }],
    ['blockdev-del', { 'node-name': 'q1' }],
    ['blockdev-del', { 'node-name': 'f0' }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f0', 'node-name': 'q0', 'read-only': true }] }],
    ['x-debug-query-block-graph'],
  ],
  'chains, locks, and options out of range': [
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q0' }],
    ['query-named-block-nodes', { flat: true }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q1' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q1', 'read-only': true }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q1', 'read-only': true, 'force-share': true }],
    ['blockdev-add', { driver: 'file', filename: '@/b.qcow2', 'node-name': 'f1' }],
    ['blockdev-add', { driver: 'file', filename: '@/b.qcow2', 'node-name': 'f2', 'read-only': true, locking: 'on' }],
    ['blockdev-add', { driver: 'qcow2', file: 'f1', 'node-name': 'q5' }],
    ['blockdev-add', { driver: 'raw', file: { driver: 'file', filename: '@/r.raw', 'auto-read-only': true }, 'node-name': 'r1', offset: 512 }],
    ['blockdev-add', { driver: 'raw', file: { driver: 'file', filename: '@/r.raw', 'auto-read-only': true }, 'node-name': 'r2', size: 1000 }],
    ['blockdev-add', { driver: 'raw', file: { driver: 'file', filename: '@/r.raw', 'auto-read-only': true }, 'node-name': 'r3', size: 1024 }],
    ['blockdev-add', { driver: 'raw', file: { driver: 'file', filename: '@/r.raw', 'auto-read-only': true }, 'node-name': 'r4', size: 1024000000000 }],
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n0' }],
    ['blockdev-add', { driver: 'null-aio', 'node-name': 'n1', size: 4096, 'read-zeroes': true, 'latency-ns': 5 }],
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n2', size: 4095 }],
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n2', size: -1 }],
    ['blockdev-add', { driver: 'qcow2', file: 'n0', 'node-name': 'q8' }],
    ['blockdev-add', { driver: 'qcow2', file: 'r1', 'node-name': 'q8' }],
    ['blockdev-add', { driver: 'file', filename: '/tmp', 'node-name': 'q8' }],
    ['blockdev-add', { driver: 'file', filename: '/dev/null', 'node-name': 'q8' }],
    ['blockdev-add', { driver: 'host_device', filename: '@/r.raw', 'node-name': 'q8' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/a.qcow2' }, 'node-name': 'q9', backing: null }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/a.qcow2' }, 'node-name': 'q9', backing: 'q0' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q10', backing: 'q0' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2', discard: 'unmap', cache: { direct: true } }, 'node-name': 'q11', 'detect-zeroes': 'unmap', 'read-only': true }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2', discard: 'unmap', cache: { direct: true } }, 'node-name': 'q11', 'detect-zeroes': 'unmap', discard: 'unmap', 'read-only': true }],
    ['x-debug-query-block-graph'],
  ],
  'filters': [
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true }],
    ['blockdev-add', { driver: 'throttle', file: 'n0', 'throttle-group': 'tg', 'node-name': 't0' }],
    ['blockdev-add', { driver: 'copy-on-read', file: 'n0', 'node-name': 'c0', bottom: 'zz' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'q0' }],
    ['blockdev-add', { driver: 'preallocate', file: 'n0', 'node-name': 'p0', 'prealloc-align': 1000 }],
    ['blockdev-add', { driver: 'preallocate', file: 'n0', 'node-name': 'p0' }],
    ['blockdev-add', { driver: 'blkverify', test: 'n0', raw: 'n0', 'node-name': 'v0' }],
    ['blockdev-add', { driver: 'blkverify', test: 'n0', 'node-name': 'v1' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0', 'n0'], 'vote-threshold': 1, 'node-name': 'qu' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0'], 'vote-threshold': 2, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'quorum', children: [], 'vote-threshold': 2, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0'], 'vote-threshold': 0, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0', 'n0'], 'vote-threshold': 1, blkverify: true, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0', 'n0'], 'vote-threshold': 2, blkverify: true, 'rewrite-corrupted': true, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'quorum', children: ['n0', 'n0', 'n0'], 'vote-threshold': 2, 'read-pattern': 'fifo', 'rewrite-corrupted': true, 'node-name': 'qu2' }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd0', align: 3 }],
    ['blockdev-add', { driver: 'blkdebug', image: 'q0', 'node-name': 'd1', 'take-child-perms': ['write'], 'unshare-child-perms': ['resize'] }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd2', 'max-transfer': 3 }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd2', 'inject-error': [{ event: 'foo' }] }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd2', 'inject-error': [{ event: 'read_aio', errno: 5 }] }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd3', config: '/nope' }],
    ['query-named-block-nodes', { flat: true }],
    ['x-debug-query-block-graph'],
    ['x-debug-query-block-graph'],
  ],
  'reopening an overlay': [
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2', 'node-name': 'f' }, 'node-name': 'q0', 'read-only': true }],
    ['blockdev-add', { driver: 'copy-on-read', file: 'q0', 'node-name': 'c0', 'read-only': true }],
    ['blockdev-add', { driver: 'copy-on-read', file: 'q0', 'node-name': 'c1' }],
    ['blockdev-add', { driver: 'raw', file: 'q0', 'node-name': 'rq' }],
    ['blockdev-add', { driver: 'qcow2', file: 'q0', 'node-name': 'q5' }],
    ['blockdev-add', { driver: 'qcow2', file: 'f', 'node-name': 'q6', 'read-only': true }],
    ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }],
    ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'q0', writable: true }],
    ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'rq', writable: true }],
    ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'q0' }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true, 'detect-zeroes': 'unmap' }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true, 'detect-zeroes': 'on' }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/zzz' }, 'node-name': 'q0', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true, backing: null }] }],
    ['query-named-block-nodes', { flat: true }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: 'f', 'node-name': 'q0', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'nono' }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true, backing: 'f' }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true, backing: 'q0' }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/a.qcow2', 'node-name': 'f' }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', locking: 'off' }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', cache: { direct: true } }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', cache: { 'no-flush': true } }, { driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', cache: { 'no-flush': true } }, { driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false, 'l2-cache-size': 1 }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': true }, { driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'file', filename: '@/b.qcow2', 'node-name': 'f', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false, 'cache-size': 5, 'l2-cache-size': 3, 'refcount-cache-size': 2 }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false, 'cache-size': 5, 'l2-cache-size': 6 }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false, 'l2-cache-entry-size': 6 }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'f', 'node-name': 'q0', 'read-only': false, 'overlap-check': 'foo' }] }],
    ['x-debug-query-block-graph'],
  ],
  'reopening all kinds of nodes': [
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true }],
    ['blockdev-reopen', { options: [{ driver: 'null-co', 'node-name': 'n0' }] }],
    ['blockdev-reopen', { options: [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': false }] }],
    ['blockdev-reopen', { options: [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, size: 5 }] }],
    ['blockdev-reopen', { options: [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'null-aio', 'node-name': 'n0', 'read-zeroes': true, 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, 'read-only': false }] }],
    ['blockdev-add', { driver: 'copy-on-read', file: 'n0', 'node-name': 'c0' }],
    ['blockdev-reopen', { options: [{ driver: 'copy-on-read', file: 'n0', 'node-name': 'c0' }] }],
    ['blockdev-add', { driver: 'quorum', children: ['n0'], 'vote-threshold': 1, 'node-name': 'qu' }],
    ['blockdev-reopen', { options: [{ driver: 'quorum', children: ['n0'], 'vote-threshold': 1, 'node-name': 'qu' }] }],
    ['blockdev-add', { driver: 'blkverify', test: 'n0', raw: 'n0', 'node-name': 'v0' }],
    ['blockdev-reopen', { options: [{ driver: 'blkverify', test: 'n0', raw: 'n0', 'node-name': 'v0' }] }],
    ['blockdev-add', { driver: 'preallocate', file: 'n0', 'node-name': 'p0' }],
    ['blockdev-reopen', { options: [{ driver: 'preallocate', file: 'n0', 'node-name': 'p0', 'prealloc-size': 65536 }] }],
    ['blockdev-add', { driver: 'blkdebug', image: 'n0', 'node-name': 'd0' }],
    ['blockdev-reopen', { options: [{ driver: 'blkdebug', image: 'n0', 'node-name': 'd0', align: 512 }] }],
    ['blockdev-reopen', { options: [{ driver: 'blkdebug', image: 'n0', 'node-name': 'd0' }] }],
    ['blockdev-add', { driver: 'raw', file: { driver: 'file', filename: '@/r.raw' }, 'node-name': 'r0', offset: 512 }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: { driver: 'file', filename: '@/r.raw' }, 'node-name': 'r0', offset: 1024 }] }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: { driver: 'file', filename: '@/r2.raw' }, 'node-name': 'r0' }] }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: { driver: 'file', filename: '@/r.raw' }, 'node-name': 'r0', size: 1024000000000 }] }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: { driver: 'file', filename: '@/r.raw', 'read-only': true }, 'node-name': 'r0', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'raw', file: 'n0', 'node-name': 'r0', 'read-only': true }] }],
    ['query-named-block-nodes', { flat: true }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0' }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0', 'read-only': true }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0', backing: 'n0' }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0', 'lazy-refcounts': true, 'l2-cache-size': 65536 }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0', backing: null }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'n0', 'node-name': 'q0', backing: null }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: 'r0', 'node-name': 'q0', backing: null }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': 'q0', backing: null }] }],
    ['blockdev-reopen', { options: [{ driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0' }, { driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, 'read-only': false, size: 1 }] }],
    ['query-named-block-nodes', { flat: true }],
    ['x-debug-query-block-graph'],
  ],
  'overlays on a node in use': [
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/c.qcow2' }, 'node-name': 'q0' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/b.qcow2' }, 'node-name': 'qb' }],
    ['blockdev-add', { driver: 'qcow2', file: { driver: 'file', filename: '@/o.qcow2' }, 'node-name': 'o0' }],
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n0' }],
    ['blockdev-snapshot', { node: 'zz', overlay: 'o0' }],
    ['blockdev-snapshot', { node: 'q0', overlay: 'zz' }],
    ['blockdev-snapshot', { node: 'q0', overlay: 'q0' }],
    ['blockdev-snapshot', { node: 'q0', overlay: 'n0' }],
    ['blockdev-snapshot', { node: 'q0', overlay: 'qb' }],
    ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }],
    ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'q0', writable: true }],
    ['blockdev-snapshot', { node: 'o0', overlay: 'q0' }],
    ['blockdev-snapshot', { node: 'q0', overlay: 'o0' }],
    ['query-named-block-nodes', { flat: true }],
    ['x-debug-query-block-graph'],
    ['blockdev-snapshot', { node: 'q0', overlay: 'o0' }],
    ['query-named-block-nodes', { flat: true }],
    ['blockdev-del', { 'node-name': 's0' }],
    ['blockdev-del', { 'node-name': 'o0' }],
    ['x-debug-query-block-graph'],
  ],
};

async function makeImages(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const name of ['a', 'c', 'o']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/${name}.qcow2`, '64M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'a.qcow2', '-F', 'qcow2', `${folder}/b.qcow2`]);
  writeFileSync(`${folder}/r.raw`, '');
  truncateSync(`${folder}/r.raw`, 16 * 2 ** 20);
}

/** Generated names end in two random digits, and allocation is the host's affair. */
function comparable(message: string): string {
  return message.replace(/#block(\d+)\d\d/g, '#block$1').replace(/"actual-size": \d+/g, '"actual-size": N');
}

peers('qemu-storage-daemon', 'qemu-img')('blockdev commands', () => {
  test.each(Object.entries(SCRIPTS))('%s', async (_title, commands) => {
    const folder = tmp('images');
    const script = negotiated(...commands.map(([execute, args = {}]) => JSON.stringify({ execute, arguments: args }).replaceAll('@/', `${folder}/`)));
    await makeImages(folder);
    const theirs = await theirTranscript(script, tmp('theirs'));
    await makeImages(folder);
    const ours = await ourDaemonTranscript(script, tmp('ours'));
    for (const [index, reply] of theirs.entries()) {
      expect([script.lines[index - 1], comparable(ours[index]!)]).toEqual([script.lines[index - 1], comparable(reply)]);
    }
  });
});
