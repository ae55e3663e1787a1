/** Every command of the daemon that asks, and most ways to be refused: the same replies as qemu-storage-daemon. */
import { rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourDaemonTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

type Request = readonly [command: string, args?: string];

/** SOCKET stands for a path that both use, one after the other. */
async function expectSame(requests: readonly Request[]): Promise<void> {
  const socket = tmp('nbd');
  const lines = requests.map(([command, args = '{}']) => `{"execute":"${command}","arguments":${args.replace('SOCKET', socket)}}`);
  const theirs = await theirTranscript(negotiated(...lines), tmp('monitor'));
  await rm(socket, { force: true });
  const ours = await ourDaemonTranscript(negotiated(...lines), tmp('monitor'));
  const told = (replies: readonly string[]): string[] => replies.slice(2).map((reply, index) => `${lines[index]} ${reply}`);
  expect(told(ours)).toEqual(told(theirs));
}

const REFUSALS: readonly Request[] = [
  ['query-block'],
  ['query-blockstats'],
  ['query-blockstats', '{"query-nodes":true}'],
  ['query-named-block-nodes'],
  ['query-block-jobs'],
  ['query-jobs'],
  ['query-block-exports'],
  ['query-chardev-backends'],
  ['x-debug-query-block-graph'],
  ['block_resize', '{"size":1}'],
  ['block_resize', '{"size":1,"node-name":"x"}'],
  ['block_resize', '{"size":1,"device":"x"}'],
  ['blockdev-snapshot', '{"node":"x","overlay":"y"}'],
  ['blockdev-snapshot-sync', '{"node-name":"x","snapshot-file":"y"}'],
  ['blockdev-snapshot-sync', '{"snapshot-file":"y"}'],
  ['change-backing-file', '{"device":"x","image-node-name":"y","backing-file":"z"}'],
  ['block-dirty-bitmap-add', '{"node":"x","name":"b"}'],
  ['block-dirty-bitmap-remove', '{"node":"x","name":"b"}'],
  ['block-dirty-bitmap-merge', '{"node":"x","target":"b","bitmaps":[]}'],
  ['x-debug-block-dirty-bitmap-sha256', '{"node":"x","name":"b"}'],
  ['block-job-set-speed', '{"device":"x","speed":1}'],
  ['block-job-cancel', '{"device":"x"}'],
  ['block-job-pause', '{"device":"x"}'],
  ['block-job-resume', '{"device":"x"}'],
  ['block-job-complete', '{"device":"x"}'],
  ['block-job-dismiss', '{"id":"x"}'],
  ['block-job-finalize', '{"id":"x"}'],
  ['job-pause', '{"id":"x"}'],
  ['job-resume', '{"id":"x"}'],
  ['job-cancel', '{"id":"x"}'],
  ['job-complete', '{"id":"x"}'],
  ['job-dismiss', '{"id":"x"}'],
  ['job-finalize', '{"id":"x"}'],
  ['blockdev-add', '{"driver":"null-co"}'],
  ['blockdev-add', '{"driver":"null-co","node-name":"n0","latency-ns":-1}'],
  ['blockdev-add', '{"driver":"null-co","node-name":"n0","read-zeroes":true}'],
  ['blockdev-add', '{"driver":"null-co","node-name":"n0"}'],
  ['blockdev-add', '{"driver":"null-co","node-name":"1x"}'],
  ['blockdev-add', '{"driver":"raw","node-name":"r0","file":"n0","size":1048576}'],
  ['blockdev-add', '{"driver":"file","node-name":"f0","filename":"/nonexistent"}'],
  ['blockdev-add', '{"driver":"qcow2","node-name":"q0","file":"n0"}'],
  ['blockdev-add', '{"driver":"raw","node-name":"r1","file":"zz"}'],
  ['query-named-block-nodes'],
  ['query-named-block-nodes', '{"flat":true}'],
  ['query-blockstats', '{"query-nodes":true}'],
  ['x-debug-query-block-graph'],
  ['blockdev-del', '{"node-name":"n0"}'],
  ['blockdev-del', '{"node-name":"x"}'],
  ['x-blockdev-amend', '{"job-id":"j2","node-name":"x","options":{"driver":"qcow2"}}'],
  ['block-set-write-threshold', '{"node-name":"x","write-threshold":1}'],
  ['block-set-write-threshold', '{"node-name":"r0","write-threshold":1}'],
  ['x-blockdev-change', '{"parent":"x"}'],
  ['x-blockdev-change', '{"parent":"r0"}'],
  ['x-blockdev-change', '{"parent":"r0","node":"n0"}'],
  ['x-blockdev-set-iothread', '{"node-name":"x","iothread":"y"}'],
  ['x-blockdev-set-iothread', '{"node-name":"r0","iothread":"y"}'],
  ['x-blockdev-set-iothread', '{"node-name":"r0","iothread":null}'],
  ['blockdev-snapshot-internal-sync', '{"device":"x","name":"s"}'],
  ['blockdev-snapshot-delete-internal-sync', '{"device":"r0"}'],
  ['blockdev-snapshot-delete-internal-sync', '{"device":"r0","name":"s"}'],
  ['nbd-server-add', '{"device":"x"}'],
  ['nbd-server-remove', '{"name":"x"}'],
  ['block-export-add', '{"type":"nbd","id":"e","node-name":"r0"}'],
  ['nbd-server-start', '{"addr":{"type":"unix","data":{"path":"SOCKET"}},"tls-creds":"nope"}'],
  ['object-add', '{"qom-type":"secret","id":"s0","data":"hello"}'],
  ['nbd-server-start', '{"addr":{"type":"unix","data":{"path":"SOCKET"}},"tls-creds":"s0"}'],
  ['nbd-server-start', '{"addr":{"type":"unix","data":{"path":"SOCKET"}}}'],
  ['nbd-server-start', '{"addr":{"type":"unix","data":{"path":"SOCKET"}}}'],
  ['block-export-add', '{"type":"nbd","id":"1e","node-name":"r0"}'],
  ['block-export-add', '{"type":"nbd","id":"e","node-name":"zz"}'],
  ['block-export-add', '{"type":"nbd","id":"e","node-name":"r0","writable":true}'],
  ['block-export-add', '{"type":"nbd","id":"e","node-name":"r0"}'],
  ['block-export-add', '{"type":"nbd","id":"e2","node-name":"r0"}'],
  ['block-export-add', '{"type":"nbd","id":"e2","node-name":"r0","name":"n2"}'],
  ['block-export-add', '{"type":"nbd","id":"e3","node-name":"r0","name":"n3","bitmaps":["x"]}'],
  ['query-block-exports'],
  ['block-export-del', '{"id":"zz"}'],
  ['query-block-exports'],
  ['nbd-server-remove', '{"name":"n2"}'],
  ['ringbuf-read', '{"device":"x","size":1}'],
  ['ringbuf-write', '{"device":"c","data":"x"}'],
  ['chardev-remove', '{"id":"x"}'],
  ['chardev-remove', '{"id":"c"}'],
  ['chardev-send-break', '{"id":"x"}'],
  ['chardev-change', '{"id":"x","backend":{"type":"null","data":{}}}'],
  ['transaction', '{"actions":[]}'],
  ['transaction', '{"actions":[{"type":"abort","data":{}}]}'],
  ['transaction', '{"actions":[{"type":"block-dirty-bitmap-add","data":{"node":"x","name":"b"}}]}'],
  ['transaction', '{"actions":[{"type":"block-dirty-bitmap-add","data":{"node":"r0","name":"b"}},{"type":"abort","data":{}}]}'],
  ['block-dirty-bitmap-add', '{"node":"r0","name":"b"}'],
  ['block-dirty-bitmap-add', '{"node":"r0","name":"b"}'],
  ['block-dirty-bitmap-add', '{"node":"r0","name":"b2","granularity":3}'],
  ['query-named-block-nodes', '{"flat":true}'],
];

const CHARDEVS: readonly Request[] = [
  ['qom-list', '{"path":"/chardevs"}'],
  ['chardev-add', '{"id":"r1","backend":{"type":"ringbuf","data":{}}}'],
  ['chardev-add', '{"id":"n1","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n2","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n3","backend":{"type":"null","data":{}}}'],
  ['chardev-remove', '{"id":"n2"}'],
  ['qom-list', '{"path":"/chardevs"}'],
  ['query-chardev'],
  ['chardev-add', '{"id":"n4","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n5","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n6","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n7","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n8","backend":{"type":"null","data":{}}}'],
  ['chardev-add', '{"id":"n9","backend":{"type":"null","data":{}}}'],
  ['qom-list', '{"path":"/chardevs"}'],
  ['query-chardev'],
  ['qom-list', '{"path":"r1"}'],
];

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test('questions and refusals', () => expectSame(REFUSALS));
  test('character devices and their order', () => expectSame(CHARDEVS));
});
