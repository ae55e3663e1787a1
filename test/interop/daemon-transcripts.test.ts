/** The daemon's commands, line for line what qemu-storage-daemon answers: replies, errors and events. */
import { beforeEach, expect, test } from '@jest/globals';
import { StorageDaemon } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript, type Transcript } from '../support/transcript.js';

const tmp = useTmp();
const VERSION = { major: 7, minor: 2, micro: 22, package: '' };

async function makeImages(): Promise<void> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('a.qcow2'), '1M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('b.qcow2'), '1M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('r.img'), '1M']);
}

/** What both answer, each with images of its own under the same names; what a file system decides made equal. */
async function both(transcript: Transcript): Promise<{ ours: string[]; theirs: string[] }> {
  await makeImages();
  const theirs = await theirTranscript(transcript, tmp('theirs'));
  await makeImages();
  await runOk('rm', ['-f', tmp('new.img'), tmp('overlay.qcow2')]);
  const daemon = new StorageDaemon({ version: VERSION });
  try {
    const ours = await ourTranscript(transcript, tmp('ours'), daemon.qmp);
    return { ours: ours.map(even), theirs: theirs.map(even) };
  } finally {
    await daemon.close();
  }
}

function even(message: string): string {
  return message
    .replace(/#block\d+/g, '#block')
    .replace(/"actual-size": \d+/g, '"actual-size": N')
    .replace(/"(date-sec|date-nsec|vm-clock-sec|vm-clock-nsec)": \d+/g, '"$1": N')
    .replace(/"filename": "[^"]*(?:ours|theirs),server=on", "label": "monitor"/g, 'MONITOR');
}

function line(execute: string, args?: unknown): string {
  return JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) });
}

let qcow2: string;
let raw: string;
beforeEach(() => {
  qcow2 = line('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: tmp('a.qcow2') } });
  raw = line('blockdev-add', { driver: 'raw', 'node-name': 'r', file: { driver: 'file', filename: tmp('r.img'), 'node-name': 'rf' } });
});

peers('qemu-storage-daemon', 'qemu-img')('the daemon answers as qemu-storage-daemon does', () => {
  test('to exports and the NBD server', async () => {
    const start = line('nbd-server-start', { addr: { type: 'unix', data: { path: tmp('nbd') } } });
    const add = (id: string, more: object = {}): string => line('block-export-add', { type: 'nbd', id, 'node-name': 'n', ...more });
    const lines = [
      qcow2, add('e'), start, start, add('e'), add('e'), add('f'), add('3f'), add('f', { name: 'x', writable: true }),
      add('g', { name: 'y', bitmaps: ['b'] }), add('g', { name: 'y', bitmaps: [{ node: 'nope', name: 'b' }] }), add('g', { name: 'y', bitmaps: [{ node: 'n', name: 'b' }] }), add('g', { name: 'y', iothread: 'b' }), add('g', { name: 'z'.repeat(5000) }),
      line('query-block-exports'), line('block-export-del', { id: 'z' }), line('blockdev-del', { 'node-name': 'n' }),
      line('block-export-del', { id: 'e' }), line('nbd-server-add', { device: 'n', name: 'x' }), line('nbd-server-add', { device: 'n' }),
      line('nbd-server-add', { device: 'q' }), line('query-block-exports'), line('nbd-server-remove', { name: 'q' }),
      line('nbd-server-remove', { name: 'n' }), line('nbd-server-stop'), line('nbd-server-stop'), line('nbd-server-remove', { name: 'n' }),
      line('nbd-server-start', { addr: { type: 'unix', data: { path: '/no/such/folder/nbd' } } }),
      line('nbd-server-start', { addr: { type: 'unix', data: { path: tmp('nbd') } }, 'tls-creds': 'none' }),
      line('blockdev-del', { 'node-name': 'n' }), line('blockdev-del', { 'node-name': 'n' }),
    ];
    const events = { 18: 2, 24: 2, 25: 2 };
    const { ours, theirs } = await both({ ...negotiated(...lines), replies: events });
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to bitmaps of exports that are read-only, by name and by node', async () => {
    const add = (id: string, ...bitmaps: unknown[]): string => line('block-export-add', { type: 'nbd', id, 'node-name': 'top', name: id, bitmaps });
    await makeImages();
    const chain = { driver: 'qcow2', 'node-name': 'top', file: { driver: 'file', filename: tmp('b.qcow2') }, backing: { driver: 'qcow2', 'node-name': 'below', file: { driver: 'file', filename: tmp('a.qcow2') } } };
    const { ours, theirs } = await both(negotiated(
      line('blockdev-add', chain), line('nbd-server-start', { addr: { type: 'unix', data: { path: tmp('nbd') } } }),
      line('block-dirty-bitmap-add', { node: 'top', name: 'own' }), line('block-dirty-bitmap-add', { node: 'top', name: 'still', disabled: true }), line('block-dirty-bitmap-add', { node: 'below', name: 'base' }),
      add('e0', 'own'), add('e1', 'still'), add('e2', 'base'), add('e3', { node: 'top', name: 'own' }), add('e4', { node: 'below', name: 'base' }), add('e5', { node: 'below', name: 'own' }),
      add('e6', { node: 'none', name: 'own' }), add('e7', 'none'), line('query-block-exports'), line('block-dirty-bitmap-remove', { node: 'top', name: 'own' }),
    ));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to a backing name that is not that of the node below any more', async () => {
    const change = (name: string): string => line('change-backing-file', { device: 'n', 'image-node-name': 'n', 'backing-file': name });
    const ask = line('query-named-block-nodes', { flat: true });
    const { ours, theirs } = await both({
      ...negotiated(line('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: tmp('c.qcow2') } }), ask, change('other.qcow2'), ask, change(tmp('a.qcow2')), ask),
      before: { 1: () => runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('a.qcow2'), '-F', 'qcow2', tmp('c.qcow2')]) },
    });
    expect(ours.slice(1)).toEqual(theirs.slice(1));
    expect(theirs[5]).toContain('json:');
  });

  test('to questions about the graph', async () => {
    const lines = [
      qcow2, raw,
      line('blockdev-add', { driver: 'null-co', 'node-name': 'z', size: 1_048_576 }), line('blockdev-add', { driver: 'raw', 'node-name': 'w', file: 'z', offset: 512 }),
      line('query-block'), line('query-blockstats'), line('query-blockstats', { 'query-nodes': true }),
      line('query-named-block-nodes'), line('query-named-block-nodes', { flat: true }), line('x-debug-query-block-graph'),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to dirty bitmaps', async () => {
    const on = (name: string, more: object = {}): object => ({ node: 'n', name, ...more });
    const lines = [
      qcow2, raw, line('block-dirty-bitmap-add', on('b')), line('block-dirty-bitmap-add', { node: 'q', name: 'b' }), line('block-dirty-bitmap-add', on('b')),
      line('block-dirty-bitmap-add', on('p', { persistent: true, disabled: true })), line('block-dirty-bitmap-add', on('g', { granularity: 1000 })),
      line('block-dirty-bitmap-add', on('')),
      line('block-dirty-bitmap-merge', { node: 'n', target: 'p', bitmaps: ['b', { node: 'n', name: 'b' }] }),
      line('block-dirty-bitmap-merge', { node: 'n', target: 'p', bitmaps: ['c'] }),
      line('block-dirty-bitmap-merge', { node: 'n', target: 'p', bitmaps: [{ node: 'nn', name: 'c' }] }),
      line('block-dirty-bitmap-disable', on('b')), line('block-dirty-bitmap-enable', on('b')), line('block-dirty-bitmap-clear', on('b')),
      line('block-dirty-bitmap-clear', on('x')), line('x-debug-block-dirty-bitmap-sha256', on('b')), line('query-named-block-nodes', { flat: true }),
      line('block-dirty-bitmap-remove', on('b')), line('block-dirty-bitmap-remove', on('b')),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to transactions', async () => {
    const action = (type: string, data: object): object => ({ type, data });
    const abort = action('abort', {});
    const add = (name: string): object => action('block-dirty-bitmap-add', { node: 'n', name });
    const together = (...actions: object[]): string => line('transaction', { actions });
    const lines = [
      qcow2, together(abort), together(), together(add('a'), add('b'), abort), together(add('a'), add('b')), together(add('c'), add('a')),
      together(action('block-dirty-bitmap-remove', { node: 'n', name: 'a' }), abort),
      together(action('block-dirty-bitmap-clear', { node: 'n', name: 'a' }), action('blockdev-snapshot-internal-sync', { device: 'n', name: 't' }), abort),
      line('blockdev-snapshot-delete-internal-sync', { device: 'n', name: 't' }),
      together(action('blockdev-snapshot-internal-sync', { device: 'n', name: 't' })),
      line('blockdev-snapshot-delete-internal-sync', { device: 'n', name: 't' }),
      line('transaction', { actions: [add('z')], properties: { 'completion-mode': 'grouped' } }), together({ type: 'foo', data: {} }),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to changes of nodes and snapshots', async () => {
    const snapshot = (device: string, name: string): string => line('blockdev-snapshot-internal-sync', { device, name });
    const remove = (args: object): string => line('blockdev-snapshot-delete-internal-sync', args);
    const lines = [
      qcow2, raw, line('block_resize', { 'node-name': 'n', size: 2_097_152 }), line('block_resize', { 'node-name': 'n', size: -1 }), line('block_resize', { size: 1 }),
      line('block_resize', { device: 'n', size: 1 }), line('block_resize', { 'node-name': 'x', size: 1 }), line('block_resize', { 'node-name': 'n', size: 1000 }),
      line('block_resize', { 'node-name': 'n', size: 65_536 }), line('block_resize', { 'node-name': 'n', size: 0 }), line('block_resize', { 'node-name': 'n', size: 1_048_576 }),
      line('block_resize', { 'node-name': 'r', size: 65_536 }), line('query-named-block-nodes', { flat: true }),
      line('block-set-write-threshold', { 'node-name': 'n', 'write-threshold': 65_536 }), line('block-set-write-threshold', { 'node-name': 'x', 'write-threshold': 1 }),
      snapshot('n', 's'), snapshot('n', 's'), snapshot('n', ''), snapshot('x', 's'), snapshot('r', 's'),
      remove({ device: 'n' }), remove({ device: 'n', name: 'z' }), remove({ device: 'n', id: '1', name: 'z' }), remove({ device: 'x', id: '1' }),
      remove({ device: 'n', name: 's' }), remove({ device: 'r', name: 's' }),
      line('x-blockdev-set-iothread', { 'node-name': 'n', iothread: null }), line('x-blockdev-set-iothread', { 'node-name': 'n', iothread: 'foo' }),
      line('x-blockdev-change', { parent: 'n' }), line('x-blockdev-change', { parent: 'n', node: 'r' }), line('x-blockdev-change', { parent: 'n', child: 'file' }),
      line('x-blockdev-change', { parent: 'n', child: 'foo' }), line('x-blockdev-change', { parent: 'z', child: 'foo' }), line('x-blockdev-change', { parent: 'n', node: 'z' }),
      line('blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': 'zz', file: 'x' }] }), line('blockdev-reopen', { options: [{ driver: 'qcow2', file: 'x' }] }),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test.each([['compat=1.1'], ['compat=0.10,cluster_size=4k']])('to runtime options of qcow2, %s', async (how) => {
    const M = 1024 * 1024;
    const options: readonly object[] = [
      { 'lazy-refcounts': true }, ...[0, 256, 512, 1000, 4096, 8192, 65_536, 131_072].map((entry) => ({ 'l2-cache-entry-size': entry })),
      { 'cache-size': M, 'l2-cache-size': M, 'refcount-cache-size': M }, { 'cache-size': M, 'l2-cache-size': 2 * M }, { 'cache-size': M, 'refcount-cache-size': 2 * M },
      { 'cache-size': 2 * M, 'refcount-cache-size': M }, { 'cache-size': 0 }, { 'l2-cache-size': 0 }, { 'refcount-cache-size': 0 }, { 'l2-cache-size': 2 ** 52 },
      { 'refcount-cache-size': 2 ** 52 }, { 'cache-size': 2 ** 52 }, { 'l2-cache-size': -1 }, { 'cache-clean-interval': 0 }, { 'cache-clean-interval': 2 ** 32 - 1 },
      { 'cache-clean-interval': 2 ** 32 }, { 'cache-clean-interval': -1 }, { 'discard-no-unref': true }, { 'pass-discard-snapshot': false, 'pass-discard-other': true },
      ...['none', 'constant', 'cached', 'all', 'much'].map((level) => ({ 'overlap-check': level })), { 'overlap-check': { template: 'all', 'active-l2': false } },
      { 'overlap-check': { template: 'much' } }, { 'overlap-check': {} }, { 'overlap-check': { foo: true } },
      { 'l2-cache-entry-size': 100, 'cache-clean-interval': 2 ** 32, 'lazy-refcounts': true },
    ];
    const lines = options.flatMap((more) => [
      line('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: tmp('options.qcow2') }, ...more }), line('blockdev-del', { 'node-name': 'n' }),
    ]);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', how, tmp('options.qcow2'), '64M']);
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
    expect(theirs.filter((message) => message.includes('too big') || message.includes('may not') || message.includes('power of two')).length).toBeGreaterThan(8);
  });

  test('to changes that would make a cycle', async () => {
    const add = (driver: string, name: string, more: object): string => line('blockdev-add', { driver, 'node-name': name, ...more });
    const image = (name: string, backing: string | null): string => add('qcow2', name, { backing, file: { driver: 'file', filename: tmp(`${name}.qcow2`), 'node-name': `${name}f` } });
    const options = (name: string, backing: string | null, file = `${name}f`): object => ({ driver: 'qcow2', 'node-name': name, backing, file });
    const reopen = (...all: object[]): string => line('blockdev-reopen', { options: all });
    const change = (parent: string, node: string): string => line('x-blockdev-change', { parent, node });
    const lines = [
      image('a', null), image('b', 'a'), add('raw', 'r', { 'read-only': true, file: 'b' }),
      reopen(options('a', 'b')), reopen(options('a', 'a')), reopen(options('a', 'r')), reopen(options('a', null, 'a')), reopen(options('a', null, 'r')),
      reopen({ driver: 'raw', 'node-name': 'r', 'read-only': true, file: 'r' }), line('blockdev-snapshot', { node: 'b', overlay: 'a' }), line('blockdev-snapshot', { node: 'a', overlay: 'b' }),
      reopen(options('a', 'b'), options('b', 'a')), reopen(options('b', null), options('a', 'b')), reopen(options('a', null), options('b', 'a')),
      ...['n1', 'n2', 'n3'].map((name) => add('null-co', name, { size: 1_048_576, 'read-zeroes': true })),
      add('quorum', 'q', { 'vote-threshold': 1, children: ['n1', 'n2'] }), change('q', 'q'), change('q', 'n1'), change('n1', 'q'),
      add('raw', 'over', { file: 'q' }), change('q', 'over'), change('q', 'q'), add('raw', 'beside', { file: 'n3' }), change('q', 'n3'), change('q', 'beside'), change('q', 'beside'),
      add('quorum', 'v', { 'vote-threshold': 2, blkverify: true, children: ['n1', 'n2'] }), change('v', 'v'), line('x-debug-query-block-graph'),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
    expect(theirs.filter((message) => message.includes('would create a cycle')).length).toBeGreaterThan(8);
  });

  test('to new images on top, and to their backing names', async () => {
    const overlay = (node: string, top: string): string => line('blockdev-snapshot', { node, overlay: top });
    const change = (device: string, image: string): string => line('change-backing-file', { device, 'image-node-name': image, 'backing-file': 'other.img' });
    const sync = (args: object): string => line('blockdev-snapshot-sync', { 'snapshot-file': tmp('overlay.qcow2'), ...args });
    const lines = [
      qcow2, raw, line('blockdev-add', { driver: 'qcow2', 'node-name': 'o', backing: null, file: { driver: 'file', filename: tmp('b.qcow2') } }),
      overlay('r', 'o'), overlay('r', 'o'), overlay('x', 'o'), overlay('r', 'y'), overlay('o', 'rf'), overlay('n', 'rf'), overlay('n', 'o'),
      change('o', 'o'), change('o', 'r'), change('o', 'zz'), change('zz', 'o'),
      line('query-named-block-nodes', { flat: true }), line('x-debug-query-block-graph'),
      sync({}), sync({ 'node-name': 'x' }), sync({ 'node-name': 'n' }), sync({ 'node-name': 'n', 'snapshot-node-name': 'o' }), sync({ device: 'n' }),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('a new image on top does not detect zeroes because the one below does', async () => {
    const { ours, theirs } = await both(negotiated(
      line('blockdev-add', { driver: 'raw', 'node-name': 'z', 'detect-zeroes': 'on', file: { driver: 'file', filename: tmp('r.img') } }),
      line('blockdev-add', { driver: 'raw', 'node-name': 'user', file: 'z' }),
      line('blockdev-snapshot-sync', { 'snapshot-file': tmp('overlay.qcow2'), 'node-name': 'z', 'snapshot-node-name': 'top' }),
      line('query-named-block-nodes', { flat: true }),
    ));
    const modes = (messages: readonly string[]): unknown => messages.at(-1)!.match(/"detect_zeroes": "\w+"|"node-name": "\w+"/g);
    expect(modes(theirs)).toContain('"node-name": "top"');
    expect(modes(ours)).toEqual(modes(theirs));
  });

  test('to jobs that make images', async () => {
    const create = (id: string, options: object): string => line('blockdev-create', { 'job-id': id, options });
    const verbs = ['job-cancel', 'job-pause', 'job-resume', 'job-complete', 'job-finalize'].map((verb) => line(verb, { id: 'j' }));
    const blockVerbs = ['cancel', 'pause', 'resume', 'complete'].map((verb) => line(`block-job-${verb}`, { device: 'j' }));
    const lines = [
      create('j', { driver: 'file', filename: tmp('new.img'), size: 1_048_576 }), line('query-jobs'), line('query-block-jobs'), ...verbs, ...blockVerbs,
      line('block-job-dismiss', { id: 'j' }), line('block-job-set-speed', { device: 'j', speed: 1 }), line('job-cancel', { id: 'x' }),
      create('j', { driver: 'file', filename: tmp('new.img'), size: 1 }), line('job-dismiss', { id: 'j' }), line('job-dismiss', { id: 'j' }),
      create('f', { driver: 'qcow2', file: 'zz', size: 1_048_576 }), line('query-jobs'), line('job-dismiss', { id: 'f' }),
      create('3', { driver: 'qcow2', file: 'zz', size: 1 }), create('n', { driver: 'null-co' }), create('r', { driver: 'raw', file: 'zz' }),
      // jobs that nobody dismissed end with the daemon
      create('g', { driver: 'qcow2', file: 'zz', size: 1_048_576 }), create('h', { driver: 'qcow2', file: 'zz', size: 1_048_576 }), line('quit'),
    ];
    const events = { 1: 6, 17: 2, 19: 5, 21: 2, 25: 5, 26: 5, 27: 3 };
    const { ours, theirs } = await both({ ...negotiated(...lines), replies: events });
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to jobs that preallocate', async () => {
    const file = (id: string, preallocation: string): string => line('blockdev-create', { 'job-id': id, options: { driver: 'file', filename: tmp('new.img'), size: 1_048_576, preallocation } });
    const image = (id: string, more: object): string => line('blockdev-create', { 'job-id': id, options: { driver: 'qcow2', file: 'rf', size: 1_048_576, ...more } });
    const lines = [
      raw, file('a', 'off'), file('b', 'metadata'), file('c', 'falloc'), file('d', 'full'), file('e', 'most'),
      image('f', { preallocation: 'metadata', 'backing-file': 'x' }), image('g', { preallocation: 'full', 'backing-file': 'x' }), image('h', { preallocation: 'falloc' }), line('query-jobs'),
    ];
    const { ours, theirs } = await both({ ...negotiated(...lines), replies: { 2: 6, 3: 5, 4: 6, 5: 6, 7: 5, 8: 5, 9: 6 } });
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });

  test('to character devices', async () => {
    const add = (id: string, type: string, data: object = {}): string => line('chardev-add', { id, backend: { type, data } });
    const change = (id: string): string => line('chardev-change', { id, backend: { type: 'null', data: {} } });
    const read = (device: string, size: number, format?: string): string => line('ringbuf-read', { device, size, format });
    const lines = [
      line('query-chardev-backends'), add('rb', 'ringbuf', { size: 16 }), add('rb', 'ringbuf'), add('r2', 'ringbuf', { size: 17 }),
      line('ringbuf-write', { device: 'rb', data: 'hello world it is long' }), line('ringbuf-write', { device: 'rb', data: 'aGVsbG8=', format: 'base64' }),
      read('rb', 5), read('rb', 100, 'base64'), read('zz', 100), read('rb', 0), line('chardev-send-break', { id: 'rb' }), line('chardev-send-break', { id: 'x' }),
      change('rb'), change('x'), line('chardev-remove', { id: 'rb' }), line('chardev-remove', { id: 'rb' }),
    ];
    const { ours, theirs } = await both(negotiated(...lines));
    expect(ours.slice(1)).toEqual(theirs.slice(1));
  });
});
