/** Bad input of every kind: one line that names the file, what was expected and what was found; nothing is made or changed. */
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, MiB, snapshotNames } from '../support/cli.js';
import { hashOf } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

type Case = readonly [what: string, args: string, message: RegExp, code?: number];

/** Words of a command line; @name is a path in the test's directory. */
function words(args: string): string[] {
  return args.split(' ').map((word) => word.replace('@', `${tmp()}/`));
}

/** good: an image with snapshot `t`; raw: not an image; short: an image cut off; none: does not exist. */
async function prepare(): Promise<void> {
  await makeImage(tmp('good'));
  await runOk('qemu-img', ['snapshot', '-c', 't', tmp('good')]);
  writeFileSync(tmp('raw'), 'no image at all');
  writeFileSync(tmp('short'), readFileSync(tmp('good')));
  truncateSync(tmp('short'), 60);
  writeFileSync(tmp('ram'), 'opaque');
  writeFileSync(tmp('cut'), 'QEVM, but not to its end');
}

const CASES: readonly Case[] = [
  ['info of what is missing', 'image info @none', /^Could not open '\S+none': No such file or directory$/],
  ['info of a directory', 'image info @', /^Could not open '\S+': expected a regular file or a block device, found a directory$/],
  ['info of a device', 'image info /dev/null', /^Could not open '\/dev\/null': expected a regular file or a block device, found a character device$/],
  ['info of another format', 'image info -f qcow2 @raw', /^'\S+raw' is not a usable qcow2 image: it does not start with the qcow2 magic$/],
  ['info of a short image', 'image info @short', /^'\S+short' is not a usable qcow2 image: /],
  ['check of a short image', 'image check @short', /^'\S+short' is not a usable qcow2 image: /],
  ['create without a size', 'image create @new', /\S+new'?: [Ii]mage creation needs a size parameter$/],
  ['create with an unknown unit', 'image create @new 1Q', /^SIZE: expected a size, got '1Q' .*--help\)$/],
  ['create with too large a size', 'image create @new 9E', /^SIZE: size is too large, got '9E'/],
  ['create with more than the clusters address', 'image create @new 4P', /^\S+new: The image size is too large for a cluster size of 65536 \(at most 2251799813685248 bytes;/],
  ['create with a negative size', 'image create @new -- -1', /^SIZE: expected a size, got '-1'/],
  ['create with a bad cluster size', 'image create @new 1M -o cluster_size=300', /^\S+new: Cluster size must be a power of two between 512 and 2M, got 300$/],
  ['create with too large clusters', 'image create @new 1M -o cluster_size=4M', /^\S+new: Cluster size .* got 4194304$/],
  ['create with a bad refcount width', 'image create @new 1M -o refcount_bits=3', /^\S+new: Refcount width .* got 3$/],
  ['create with lazy refcounts in version 2', 'image create @new 1M -o compat=0.10,lazy_refcounts=on', /^\S+new: .*compat/i],
  ['create with an unknown format option', 'image create @new 1M -o clustersize=64k', /^-o: unknown option 'clustersize', expected one of compat, /],
  ['create with an unknown format', 'image create -f vmdk @new 1M', /^--format: expected one of qcow2, raw, got 'vmdk'/],
  ['create in a missing directory', 'image create @none/new 1M', /^Could not open '\S+none\/new': No such file or directory$/],
  ['create over a directory', 'image create @ 1M', /found a directory$/],
  ['create over a missing backing file', 'image create -b none -F qcow2 @new', /^\S+new: Could not open '\S+none': No such file or directory$/],
  ['create over a backing file of no named format', 'image create -b good @new', /^a backing file needs its format: add -F qcow2 or -F raw/],
  ['an unknown option', 'image info --jsno @good', /^unknown option '--jsno' \(did you mean '--json'\?\) \(see quiesce image info --help\)$/],
  ['an unknown option of a snapshot command', 'snapshot list --jsno @good', /^unknown option '--jsno' \(did you mean '--json'\?\)/, 2],
  ['an unknown command', 'snapshot crate @good t', /^unknown command 'snapshot crate' \(did you mean 'snapshot create'\?\)/, 2],
  ['a command whose first word was left out', 'info @good', /^unknown command 'info' \(did you mean 'image info' or 'nbd info'\?\)/, 2],
  ['no tag', 'snapshot create @good', /^TAG is missing \(see quiesce snapshot create --help\)$/, 2],
  ['a word too many', 'snapshot create @good a b', /^unexpected argument 'b'/, 2],
  ['a snapshot of a raw image', 'snapshot create @raw t', /^'\S+raw' has format raw, which has no internal snapshots; a qcow2 image was expected$/],
  ['a list of a raw image', 'snapshot list @raw', /^'\S+raw' has format raw/],
  ['a tag that exists', 'snapshot create @good t', /^'\S+good' already has a snapshot 't' /],
  ['a tag that is too long', `snapshot create @good ${'é'.repeat(128)}`, /^'\S+good' takes snapshot names of 1 to 255 bytes without NUL, got "é{32}…" \(256 bytes\)$/],
  ['a state file that is missing', 'snapshot create @good a --vm-state @none', /^could not open '\S+none': No such file or directory$/],
  ['a state file that is a directory', 'snapshot create @good a --vm-state @', /is a directory, expected a file with VM state$/],
  ['a socket without a name', 'snapshot create @good a --vm-state unix:', /^'unix:' names no socket, expected unix:PATH$/],
  ['a socket name that is too long', `snapshot create @good a --vm-state unix:/${'x'.repeat(120)}`, /has 121 bytes, more than the 107 of a unix socket's name$/],
  ['a socket in a missing directory', 'snapshot create @good a --vm-state unix:@none/s', /^could not listen at '\S+none\/s': No such file or directory$/],
  ['a socket where a file is', 'snapshot create @good a --vm-state unix:@raw', /^'\S+raw' exists and is no socket, so nothing can listen there$/],
  ['no QEMU at the QMP socket', 'snapshot create @good a --vm-state qmp:@none', /^could not connect to QEMU at '\S+none': No such file or directory$/],
  ['a QMP socket without a name', 'snapshot create @good a --vm-state qmp:', /^--vm-state: 'qmp:' names no socket, expected qmp:PATH/, 2],
  ['too many writers', 'snapshot create @good a --depth 65', /^--depth: expected 1 to 64, got 65/, 2],
  ['too large chunks', 'snapshot create @good a --chunk-size 65M', /^--chunk-size: expected 1 to 67108864, got 68157440/, 2],
  ['a clock that is no number', 'snapshot create @good a --vm-clock soon', /^--vm-clock: expected a whole number below 2\^64, got 'soon'/, 2],
  ['an unknown cache mode', 'snapshot create @good a --cache wb', /^--cache: expected one of writeback, none, .* got 'wb'/, 2],
  ['load without a destination', 'snapshot load @good t', /^option '--vm-state' is required/, 2],
  ['load of a disk-only snapshot', 'snapshot load @good t --vm-state @out', /^snapshot 't' of '\S+good' is disk-only and has no VM state/],
  ['extract of a tag that is not there', 'snapshot extract @good a --vm-state @out', /^'\S+good' has no snapshot 'a': it has 't'$/],
  ['revert to a tag that is not there', 'snapshot revert @good a', /^'\S+good' has no snapshot 'a': it has 't'$/],
  ['delete of a tag that is not there', 'snapshot delete @good a', /^'\S+good' has no snapshot 'a': it has 't'$/],
];

peers('qemu-img')('bad input', () => {
  test.each(CASES)('%s', async (_what, args, message, code = 1) => {
    await prepare();
    const before = hashOf(readFileSync(tmp('good')));
    await expectRefused(words(args), message, code);
    expect(hashOf(readFileSync(tmp('good')))).toBe(before);
    expect([existsSync(tmp('new')), existsSync(tmp('out'))]).toEqual([false, false]);
    await runOk('qemu-img', ['check', '-q', tmp('good')]);
  });

  test('a stream that was cut off', async () => {
    await prepare();
    await expectRefused(words('snapshot create @good a --vm-state @cut'), /^the QEMU migration stream ended after 24 bytes .*: it was cut off/);
    expect(await snapshotNames(tmp('good'))).toEqual(['t']);
    await runOk('qemu-img', ['check', '-q', tmp('good')]);
  });

  test('an empty tag', async () => {
    await prepare();
    await expectRefused(['snapshot', 'create', tmp('good'), ''], /takes snapshot names of 1 to 255 bytes without NUL, got "" \(0 bytes\)$/);
  });

  test('a directory that cannot be written to, and a full disk, fail in one line and leave the image as it was', async () => {
    await prepare();
    writeFileSync(tmp('ram'), Buffer.alloc(8 * MiB, 1));
    const limited = await run('bash', ['-c', 'ulimit -f 4096; trap "" XFSZ; exec "$@"', 'bash', 'cli/quiesce', 'snapshot', 'create', tmp('good'), 'a', '--vm-state', tmp('ram')]);
    expect([limited.code, limited.stderr]).toEqual([1, expect.stringMatching(/^quiesce: [^\n]*'\S+good'[^\n]*: File too large\n$/)]);
    expect((await quiesce(['snapshot', 'list', '--json', tmp('good')])).stdout).not.toContain('"a"');
    await runOk('qemu-img', ['check', '-q', '-r', 'leaks', tmp('good')]);
  });
});
