/** What QMP tells when a request comes across metadata that contradicts itself: BLOCK_IMAGE_CORRUPTED as qemu-storage-daemon's, and an image that is of no use afterwards. */
import { open, rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { underOurs, underQemu, write } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourDaemonTranscript, theirTranscript, type Transcript } from '../support/transcript.js';

const tmp = useTmp();

const REFCOUNT_TABLE = 0x10000;
const REFCOUNT_BLOCK = 0x20000;
const L1_TABLE = 0x30000;
const SECOND_ENTRY = 0x40008;

interface Damage {
  readonly at: number;
  readonly entry: string;
  readonly compat?: string;
  readonly readOnly?: boolean;
  /** Take a snapshot before, and give the active disk an L2 table of its own; `at` counts from that. */
  readonly snapshot?: boolean;
  readonly overlapCheck?: string | object;
  readonly io: readonly string[];
}

async function damagedImage({ at, entry, compat = '1.1', snapshot = false }: Damage): Promise<void> {
  await rm(tmp('a.qcow2'), { force: true });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, tmp('a.qcow2'), '1M']);
  await runOk('qemu-io', ['-c', 'write -P 1 0 256k', tmp('a.qcow2')]);
  if (snapshot) {
    await runOk('qemu-img', ['snapshot', '-c', 's', tmp('a.qcow2')]);
    await runOk('qemu-io', ['-c', 'write -P 2 0 64k', tmp('a.qcow2')]);
  }
  const file = await open(tmp('a.qcow2'), 'r+');
  try {
    const table = snapshot ? (await file.read(Buffer.alloc(8), 0, 8, L1_TABLE)).buffer.readUInt32BE(4) : 0;
    await file.write(Buffer.from(entry, 'hex'), 0, 8, table + at);
  } finally {
    await file.close();
  }
}

async function answers(damage: Damage, ask: (transcript: Transcript) => Promise<string[]>): Promise<string[]> {
  await damagedImage(damage);
  await rm(tmp('nbd'), { force: true });
  const writable = damage.readOnly !== true;
  let told = '';
  const exchange = await ask({
    ...negotiated(
      `{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"q","read-only":${!writable},"overlap-check":${JSON.stringify(damage.overlapCheck ?? 'cached')},"file":{"driver":"file","filename":"${tmp('a.qcow2')}"}}}`,
      `{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"${tmp('nbd')}"}}}}`,
      `{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"q","writable":${writable}}}`,
      '{"execute":"query-block-jobs"}',
      ...(writable ? ['{"execute":"query-named-block-nodes"}'] : []),
    ),
    replies: { 4: 2 },
    before: {
      4: async () => {
        const commands = damage.io.flatMap((command) => ['-c', command]);
        const { stdout, stderr } = await run('qemu-io', [...(writable ? [] : ['-r']), '-f', 'raw', ...commands, `nbd+unix:///q?socket=${tmp('nbd')}`]);
        told = (stdout + stderr).split('\n').filter((line) => !line.includes('ops')).join('\n');
      },
    },
  });
  const image = JSON.parse(await runOk('qemu-img', ['info', '-U', '--output=json', tmp('a.qcow2')])) as { 'format-specific': { data: { corrupt?: boolean } } };
  return [...exchange.slice(2), told, `marked: ${image['format-specific'].data.corrupt}`];
}

const DAMAGES: readonly (readonly [what: string, damage: Damage])[] = [
  ['a data cluster that is not aligned', { at: SECOND_ENTRY, entry: '8000000000062a00', io: ['read 0 4k', 'read 64k 4k', 'read 0 4k', 'write 0 4k'] }],
  ['the same in an image that is read only', { at: SECOND_ENTRY, entry: '8000000000062a00', readOnly: true, io: ['read 64k 4k', 'read 64k 4k', 'read 0 4k'] }],
  ['an L2 table that is not aligned', { at: L1_TABLE, entry: '8000000000042a00', io: ['write 0 4k', 'read 64k 4k'] }],
  ['a refcount block that is not aligned', { at: REFCOUNT_TABLE, entry: '0000000000022a00', io: ['write 512k 4k', 'write 0 4k'] }],
  ['a data cluster that is the L1 table', { at: SECOND_ENTRY, entry: '8000000000030000', io: ['write 64k 4k', 'write 0 4k'] }],
  ['a data cluster that is the L2 table', { at: SECOND_ENTRY, entry: '8000000000040000', io: ['write 64k 4k', 'write 0 4k'] }],
  ['a data cluster that is a refcount block', { at: SECOND_ENTRY, entry: '8000000000020000', io: ['write 64k 4k', 'read 0 4k'] }],
  ['a data cluster that is the refcount table', { at: SECOND_ENTRY, entry: '8000000000010000', io: ['write 64k 4k', 'read 0 4k'] }],
  ['a data cluster that is the L2 table of a snapshot, where all is checked', { at: 8, entry: '8000000000040000', snapshot: true, overlapCheck: 'all', io: ['write 64k 4k', 'read 0 4k'] }],
  ['the same, where only that is checked', { at: 8, entry: '8000000000040000', snapshot: true, overlapCheck: { template: 'none', 'inactive-l2': true }, io: ['write 64k 4k', 'read 0 4k'] }],
  ['a data cluster that is a snapshot table or its L1 table', { at: 8, entry: '80000000000a0000', snapshot: true, io: ['write 64k 4k', 'read 0 4k'] }],
  ['and the other one', { at: 8, entry: '8000000000090000', snapshot: true, io: ['write 64k 4k', 'read 0 4k'] }],
  ['an L2 table that is a refcount block', { at: L1_TABLE, entry: '8000000000020000', io: ['write 512k 4k', 'flush', 'read 0 4k'] }],
  ['an L1 table that counts as free', { at: REFCOUNT_BLOCK, entry: '0001000100010000', io: ['write 513k 4k', 'read 0 4k'] }],
  ['an L2 table that counts as free', { at: REFCOUNT_BLOCK + 8, entry: '0000000100010001', io: ['write 513k 4k', 'read 0 4k'] }],
  ['a write to another part of the L1 table\'s cluster', { at: SECOND_ENTRY, entry: '8000000000030000', io: ['write 100k 4k', 'read 0 4k'] }],
  ['a zero cluster in a version 2 image', { at: SECOND_ENTRY, entry: '8000000000060001', compat: '0.10', io: ['read 64k 4k', 'write 0 4k'] }],
];

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('as qemu-storage-daemon', () => {
  test.each(DAMAGES)('%s', async (_what, damage) => {
    const theirs = await answers(damage, (transcript) => theirTranscript(transcript, tmp('monitor')));
    const ours = await answers(damage, (transcript) => ourDaemonTranscript(transcript, tmp('monitor')));
    expect(ours).toEqual(theirs);
    expect(theirs.join('\n')).toContain('BLOCK_IMAGE_CORRUPTED');
  });

  // the write succeeds, and damages the image: what was asked for
  test.each(['none', { template: 'all', 'active-l2': false, 'inactive-l2': false }])('what is not checked is written: %j', async (overlapCheck) => {
    for (const tool of ['qemu-img', 'ours']) {
      await damagedImage({ at: SECOND_ENTRY, entry: '8000000000040000', io: [] });
      const tree = { driver: 'qcow2', 'overlap-check': overlapCheck, file: { driver: 'file', filename: tmp('a.qcow2') } };
      const commands = [write(64 * 1024 + 32_768, 512)];
      expect([tool, await (tool === 'ours' ? underOurs(tree, commands) : underQemu(tree, commands))]).toEqual([tool, ['ok']]);
    }
  });
});
