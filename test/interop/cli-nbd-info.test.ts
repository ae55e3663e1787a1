/** `quiesce nbd info` about servers of others: the numbers that nbdinfo tells. */
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk } from '../support/cli.js';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

peers('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')('about qemu-nbd', () => {
  const startPeer = useNbdPeers();

  async function servedUri(...more: string[]): Promise<string> {
    const image = await makeImage(tmp('disk.qcow2'), '64M');
    await runOk('qemu-io', ['-c', 'write 1M 3M', '-c', 'write -z 8M 1M', image]);
    await runOk('qemu-img', ['bitmap', '--add', image, 'b0']);
    await runOk('qemu-io', ['-c', 'write 20M 64k', image]);
    const { socket } = await startPeer('qemu-nbd', ['-f', 'qcow2', '-t', '-e', '8', '-x', 'disk', '-D', 'of a test', '-k', tmp('s'), ...more, image], tmp('s'));
    return `nbd+unix:///disk?socket=${socket}`;
  }

  test('an export in words and as JSON', async () => {
    const uri = await servedUri('-A', '-B', 'b0', '-r');
    const text = await quiesceOk(['nbd', 'info', uri]);
    expect(text).toContain('export: "disk"\n  description: of a test\n  size: 64 MiB (67108864 bytes)\n  flags: read-only, flush, fua, df, multi-conn, cache\n');
    expect(text).toContain('contexts: base:allocation, qemu:allocation-depth, qemu:dirty-bitmap:b0');
    const [ours, theirs] = [await quiesceOk(['nbd', 'info', '--json', uri]), await runOk('nbdinfo', ['--json', uri])]
      .map((json) => (JSON.parse(json) as { exports: Record<string, unknown>[] }).exports[0]!);
    for (const field of ['export-name', 'description', 'export-size', 'contexts']) {
      expect([field, ours![field]]).toEqual([field, theirs![field]]);
    }
  });

  test.each(['base:allocation', 'qemu:dirty-bitmap:b0', 'qemu:allocation-depth'])('the map of %s', async (context) => {
    const uri = await servedUri('-A', '-B', 'b0', '-r');
    const theirs = await runOk('nbdinfo', [`--map=${context}`, uri]);
    expect(await quiesceOk(['nbd', 'info', '--map', '--context', context, uri])).toBe(theirs);
    expect(theirs.split('\n').length).toBeGreaterThan(2);
  });

  test('an export that is not there, a server that is not there, options that clash', async () => {
    const uri = await servedUri();
    await expectRefused(['nbd', 'info', uri.replace('disk', 'disc')], "export 'disc' not present");
    await expectRefused(['nbd', 'info', '--map', uri.replace('disk', 'disc')], 'disc');
    await expectRefused(['nbd', 'info', `nbd+unix:///?socket=${tmp('nobody')}`], /nobody/);
    await expectRefused(['nbd', 'info', '--map', '--list', uri], 'exclude each other', 2);
    await expectRefused(['nbd', 'info', 'disk.qcow2'], "'disk.qcow2' is no NBD export's name");
  });
});

peers('nbdkit')('about nbdkit', () => {
  const startPeer = useNbdPeers();

  test('all exports with --list', async () => {
    const { socket } = await startPeer('nbdkit', nbdkitArgs(tmp('s'), 'eval', 'list_exports=printf "INTERLEAVED\\none\\nthe first\\ntwo\\nthe second\\n"',
      'open=echo "$3"', 'get_size=[ "$2" = two ] && echo 2M || echo 1M', 'pread=exit 1'), tmp('s'));
    const { exports } = JSON.parse(await quiesceOk(['nbd', 'info', '--list', '--json', `nbd+unix://?socket=${socket}`])) as { exports: Record<string, unknown>[] };
    expect(exports.map((one) => [one['export-name'], one['description'], one['export-size']])).toEqual([['one', 'the first', 1 << 20], ['two', 'the second', 2 << 20]]);
  });
});
