/** `image bitmap` against `qemu-img bitmap`: the same command lines on two images leave the same bitmaps. */
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function makeImage(path: string): Promise<void> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);
  for (const name of ['a', 'b']) {
    await runOk('qemu-img', ['bitmap', '--add', path, name]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q ${name === 'a' ? '1M' : '9M'} 300k`, path]);
  }
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('image bitmap', () => {
  test('does what qemu-img bitmap does, and refuses what it refuses with the same words', async () => {
    const [theirs, ours, other] = [tmp('theirs.qcow2'), tmp('ours.qcow2'), tmp('other.qcow2')];
    await Promise.all([theirs, ours, other].map(makeImage));
    const raw = tmp('disk.raw');
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', raw, '1M']);
    const lines: readonly (readonly string[])[] = [
      ['--add', 'IMAGE', 'c'],
      ['--add', '-g', '1M', '--disable', 'IMAGE', 'd'],
      ['--add', '--disable', '--merge', 'a', '--merge', 'b', 'IMAGE', 'both'],
      ['--merge', 'b', '-b', other, '-F', 'qcow2', 'IMAGE', 'd'],
      ['--add', '--remove', '--add', '-g', '0', 'IMAGE', 'e'],
      ['--disable', '--clear', 'IMAGE', 'a'],
      ['--remove', 'IMAGE', 'b'],
      ['--enable', 'IMAGE', 'd'],
      ['--merge', 'none', 'IMAGE', 'd'],
      ['--merge', 'none', '-b', other, 'IMAGE', 'd'],
      ['--clear', 'IMAGE', 'none'],
      ['--add', 'IMAGE', 'd'],
      ['--add', 'IMAGE', ''],
      ['--add', '-g', '1000', 'IMAGE', 'f'],
      ['--add', '-g', '8G', 'IMAGE', 'f'],
      ['-g', '1M', '--clear', 'IMAGE', 'd'],
      ['-b', other, '--clear', 'IMAGE', 'd'],
      ['-F', 'qcow2', '--clear', 'IMAGE', 'd'],
      ['IMAGE', 'd'],
    ];
    for (const line of lines) {
      const [their, our] = await Promise.all([
        run('qemu-img', ['bitmap', ...line.map((word) => (word === 'IMAGE' ? theirs : word))]),
        quiesce(['image', 'bitmap', ...line.map((word) => (word === 'IMAGE' ? ours : word))]),
      ]);
      expect({ line, code: our.code, stdout: our.stdout }).toEqual({ line, code: their.code, stdout: their.stdout });
      expect(our.stderr.replace(/ \(see quiesce .*\)/, '')).toBe(their.stderr.replace('qemu-img:', 'quiesce:'));
    }
    expect(await qemuBitmaps(ours)).toEqual(await qemuBitmaps(theirs));
    for (const { name } of await qemuBitmaps(theirs)) expect([name, await qemuSha256(ours, name)]).toEqual([name, await qemuSha256(theirs, name)]);
    expect((await quiesce(['image', 'bitmap', '--add', '-f', 'raw', raw, 'a'])).stderr).toContain("Operation add on bitmap a failed: Can't store persistent bitmaps to ");
    expect(await runOk('qemu-img', ['check', ours])).toContain('No errors were found');
  });

  test('shows bitmaps in image info as qemu-img does', async () => {
    const path = tmp('image.qcow2');
    await makeImage(path);
    await runOk('qemu-img', ['bitmap', '--disable', path, 'a']);
    const info = async (output: readonly string[]): Promise<readonly [string, string]> =>
      Promise.all([runOk('qemu-img', ['info', ...output, path]), quiesce(['image', 'info', ...output, path]).then(({ stdout }) => stdout)]);
    const specificOf = (text: string): string => text.slice(text.indexOf('Format specific'));
    const [theirs, ours] = await info([]);
    expect(specificOf(ours)).toBe(specificOf(theirs));
    expect(ours).toContain('            name: a\n');
    const [theirJson, ourJson] = await info(['--output=json']);
    expect(JSON.parse(ourJson)).toEqual(JSON.parse(theirJson));
  });
});
