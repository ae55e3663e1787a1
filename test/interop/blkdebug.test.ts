/** The same blkdebug config under qemu-io and under ours: the same request fails, with the same errno. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { discard, ERRNO_TEXTS, flush, read, underOurs, underQemu, write, zero, type IoCommand, type Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

async function both(driver: string, image: string, commands: readonly IoCommand[]): Promise<{ readonly qemu: string[]; readonly ours: string[] }> {
  copyFileSync(image, tmp('copy'));
  const tree = (filename: string): Tree => ({ driver, file: { driver: 'blkdebug', config: tmp('config'), image: { driver: 'file', filename } } });
  return { qemu: await underQemu(tree(image), commands), ours: await underOurs(tree(tmp('copy')), commands) };
}

/** Clusters of 4 KiB, so an L2 table maps 2 MiB: the first exists, the second does not. */
async function overlay(): Promise<string> {
  writeFileSync(tmp('base'), Buffer.alloc(4 * MiB, 9));
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', '-b', tmp('base'), '-F', 'raw', tmp('image'), '4M']);
  await runOk('qemu-io', ['-c', 'write -P 1 0 64k', '-c', 'write -P 1 1M 8k', tmp('image')]);
  return tmp('image');
}

peers('qemu-img', 'qemu-io')('blkdebug against qemu-io', () => {
  const commands = [
    read(0, 4 * KiB), read(2 * MiB, 4 * KiB), write(KiB, KiB), write(2 * MiB, 4 * KiB), write(3000 * KiB, 100), zero(8 * KiB, 8 * KiB), write(0, 4 * KiB), read(0, 64 * KiB),
  ];
  test.each([
    ['none', 'EIO', 5], ['reftable_load', 'ENOMEM', 12], ['l2_load', 'ENOSPC', 28], ['l2_alloc_write', 'ENOSPC', 28], ['read_aio', 'EIO', 5], ['read_backing_aio', 'ENOMEM', 12],
    ['write_aio', 'ENOSPC', 28], ['cow_read', 'EIO', 5], ['cow_write', 'EBUSY', 16], ['refblock_load', 'EIO', 5], ['refblock_alloc', 'ENOSPC', 28], ['cluster_alloc', 'ENOSPC', 28],
    ['pwritev', 'EIO', 5], ['pwritev_done', 'EBUSY', 16],
  ])('%s fails one request: %s', async (event, errno, number) => {
    writeFileSync(tmp('config'), `[inject-error]\nevent = "${event}"\nerrno = "${number}"\nonce = "on"\n`);
    const { qemu, ours } = await both('qcow2', await overlay(), commands);
    expect(ours).toEqual(qemu);
    expect(qemu.filter((outcome) => outcome !== 'ok').map((outcome) => outcome.replace('open: ', ''))).toEqual([ERRNO_TEXTS[errno]]);
  });

  test.each(['write_aio', 'cluster_alloc_space', 'l2_alloc_write', 'cluster_alloc'])('%s in an image without a backing file', async (event) => {
    writeFileSync(tmp('config'), `[inject-error]\nevent = "${event}"\nerrno = "28"\nonce = "on"\n`);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('plain'), '4M']);
    const { qemu, ours } = await both('qcow2', tmp('plain'), [write(MiB, 64 * KiB), write(2 * MiB, 512), write(3 * MiB, 512)]);
    expect(ours).toEqual(qemu);
    expect(qemu.filter((outcome) => outcome !== 'ok')).toEqual([ERRNO_TEXTS['ENOSPC']]);
  });

  // QEMU writes some tables within the request that changes them; ours wait for the next flush, which then fails
  test.each(['l1_update', 'l2_update', 'refblock_update_part'])('%s fails what writes the table', async (event) => {
    writeFileSync(tmp('config'), `[inject-error]\nevent = "${event}"\nerrno = "28"\nonce = "on"\n`);
    const { qemu, ours } = await both('qcow2', await overlay(), [write(2 * MiB, 4 * KiB), flush]);
    expect(qemu).toEqual([ERRNO_TEXTS['ENOSPC']]); // a flush says nothing where it succeeds
    expect(ours).toEqual(['ok', ERRNO_TEXTS['ENOSPC']]);
  });

  test('a raw image: sectors, states, and types of I/O', async () => {
    const section = (name: string, lines: readonly string[]): string => `[${name}]\n${lines.map((line) => line.replace('=', ' = "')).join('"\n')}"\n`;
    const configs = [
      section('inject-error', ['event=none', 'sector=3', 'errno=12']),
      section('inject-error', ['event=none', 'sector=3', 'errno=12', 'once=on', 'immediately=on']),
      section('inject-error', ['event=pwritev', 'iotype=write']),
      section('inject-error', ['event=pwritev', 'iotype=read', 'errno=28']),
      section('inject-error', ['event=none', 'iotype=discard', 'errno=16']),
      section('set-state', ['event=pwritev', 'state=1', 'new_state=2']) + section('set-state', ['event=pwritev', 'state=2', 'new_state=3']) +
        section('inject-error', ['event=pwritev_done', 'state=3', 'errno=28', 'once=on']),
    ];
    const requests = [read(0, 512), read(1024, 1024), write(0, 512), read(1536, 100), write(1500, 100), discard(0, 4096), read(1024, 1024), write(4096, 512), read(0, 512)];
    for (const config of configs) {
      writeFileSync(tmp('config'), config);
      writeFileSync(tmp('raw'), Buffer.alloc(MiB, 1));
      const { qemu, ours } = await both('raw', tmp('raw'), requests);
      expect({ config, outcomes: ours }).toEqual({ config, outcomes: qemu });
      expect(qemu.some((outcome) => outcome !== 'ok')).toBe(true);
    }
  });
});
