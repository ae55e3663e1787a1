/** Wrong command lines of quiesce-nbd: the same words and exit codes as qemu-nbd's. */
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { standIn, until } from '../support/programs.js';
import { kill, run, runOk, start, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

const LINES: readonly (readonly string[])[] = [
  [], ['a', 'b'], ['--foo'], ['--foo=bar'], ['-P'], ['-tzv'], ['--s', 'x'], ['--s=x'], ['--fork=x'], ['-A', '-B'], ['--pid-file'],
  ['-L', 'x'], ['-L', '-o', '1'], ['-L', '-f', 'raw'], ['-L', '--fork'], ['-L', '-x', 'n'], ['-k', 'a', 'x'],
  ['-o', 'x', 'y'], ['-o', '-1', 'none'], ['-o', '0x10z', 'y'], ['-o', '08', 'y'], ['-e', '-1', 'y'], ['-e', 'x', 'y'], ['-e', '99999999999', 'y'],
  ['--cache=foo', 'a'], ['-n', '--cache=none', 'a'], ['--aio=foo', 'a'], ['--aio=threads', '--aio=threads', 'a'], ['--discard=foo', 'a'],
  ['--detect-zeroes=foo', 'a'], ['--detect-zeroes=unmap', 'a'], ['--tls-authz=a', 'x'], ['--tls-hostname=a', 'x'], ['--tls-creds', 'a', 'x'],
  ['--tls-creds', 'a', '-L', '--tls-authz', 'b'], ['--tls-creds', 'a', '--tls-hostname=x', 'b'], ['--selinux-label', 'x', 'y'],
  ['--image-opts', '-f', 'raw', 'x'], ['--image-opts', 'driver=foo'], ['--image-opts', 'foo'], ['-f', 'foo', 'IMAGE'], ['-k', 'SOCKET', '-f', 'qcow2', 'TEXT'],
  ['-l', 'none', 'IMAGE'], ['-l', 'snapshot.id=1,snapshot.name=2', 'IMAGE'], ['-l', 'snapshot.foo=1', 'IMAGE'], ['-B', 'none', '-k', 'SOCKET', 'IMAGE'],
  ['-k', '/no/such/folder/s', 'IMAGE'], ['-k', 'SOCKET', '-o', '1048577', 'IMAGE'], ['--object', 'secret,id=a', 'x'], ['--object', 'foo', 'x'], ['--object', 'secret,id=3,data=x', 'x'],
  ['--object', 'secret,id=s,data=x', '--tls-creds', 's', 'x'], ['--pid-file=/no/such/folder/p', '-k', 'SOCKET', 'IMAGE'],
  ['--fork', '--pid-file=/no/such/folder/p', '-k', 'SOCKET', 'IMAGE'], ['--fork', '-k', 'SOCKET', 'none'],
  ['-c', '/dev/no-such-nbd', 'IMAGE'], ['-d', '/dev/no-such-nbd'], ['-b', 'no.such.host.invalid', 'IMAGE'], ['-p', 'abc', 'IMAGE'],
  ['-k', 'SOCKET', 'HELD'], ['-k', 'SOCKET', '-f', 'qcow2', 'HELD'], ['-k', 'SOCKET', '-r', 'HELD'], ['-k', 'SOCKET', '-s', '-o', '2097152', 'IMAGE'], ['-k', 'SOCKET', '-o', '9223372036854775808', 'IMAGE'],
  ['-k', `/no/${'a'.repeat(120)}`, 'IMAGE'], ['-k', '/tmp', 'IMAGE'], ['--aio=native', '-k', 'SOCKET', 'IMAGE'], ['--object', 'secret,id=a b,data=x', 'x'], ['-k', 'SOCKET', '-l', 's', '-f', 'raw', 'TEXT'],
  ['-l', 'snapshot.', 'IMAGE'], ['-k', 'SOCKET', 'foo:bar'], ['-k', 'SOCKET', 'json:{'], ['-k', 'SOCKET', 'json:{"driver":"raw","file":"zz"}'], ['-k', 'SOCKET', '.'], ['-k', 'SOCKET', ''],
  ['-k', 'SOCKET', '--image-opts', 'driver=raw,node-name=a b,file.driver=file,file.filename=IMAGE'], ['-p', '70000', '-o', 'x', 'IMAGE'],
  ['-T', 'foo', 'none'], ['--trace', 'enable=foo,x=1', 'none'], ['-T', 'file=/no/such/folder/x', 'none'], ['-T', 'file=/no/such/folder/x'], ['-T', 'file=/no/x', '-L', 'x'],
  ['-T', 'file=/no/x', '-T', 'file=log', 'none'], ['-T', 'file=/no/x', '--tls-authz', 'x', 'none'], ['-T', 'events=/no/x', 'a', 'b'], ['-T'], ['--fork', '-T', 'foo', 'none'],
  ['-p', '', 'none'], ['-p', ' 70000', 'none'], ['-p', '+1', 'none'], ['-p', '-1', 'IMAGE'], ['-p', '1 ', 'IMAGE'], ['-p', ' ', 'IMAGE'],
  ['-L', '-k', '/no/such/socket'], ['-L', '-p', '1'], ['-k', 'SOCKET', 'none'], ['-k', 'SOCKET', '-f', 'raw', 'none'],
];

peers('qemu-nbd', 'qemu-img')('a wrong command line', () => {
  test('is refused in the same words', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('IMAGE'), '1M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('TEXT'), '1M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('HELD'), '1M']);
    const holder = start('qemu-io', [tmp('HELD')]);
    await until(async () => (await run('qemu-img', ['info', tmp('HELD')])).code !== 0, 'the image is not locked');
    const ours = standIn('qemu-nbd', tmp('bin'));
    const outcome = ({ code, stdout, stderr }: RunResult): object => ({ code, stdout, stderr });
    const differing: object[] = [];
    const compare = async (words: readonly string[]): Promise<void> => {
      const args = words.map((word) => (word === 'SOCKET' ? tmp(`socket-${words.length}`) : word));
      const options = { cwd: tmp(), timeoutMs: 20_000 };
      const [one, other] = [outcome(await run('qemu-nbd', args, options)), outcome(await run(ours, args, options))];
      if (JSON.stringify(one) !== JSON.stringify(other)) differing.push({ args, theirs: one, ours: other });
    };
    for (const words of LINES) await compare(words);
    await kill(holder);
    expect(differing).toEqual([]);
  }, 300_000);
});

test('--help and --version speak under the name that was called', async () => {
  const ours = standIn('qemu-nbd', tmp('bin'));
  expect(await runOk(ours, ['--version'])).toMatch(/^qemu-nbd 7\.2\.\d+ /);
  const help = await runOk(ours, ['-h']);
  expect(help).toMatch(/^Usage: qemu-nbd \[OPTIONS\] FILE\n/);
  expect(help).toContain('--allocation-depth');
});
