/** `quiesce nbd serve`: what the usual clients see of it, and how it ends. */
import { statSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const started: RunningCommand[] = [];

afterEach(async () => {
  for (const { child } of started.splice(0)) await kill(child);
});

/** Its first line: the URI. */
async function serve(...args: string[]): Promise<RunningCommand & { readonly uri: string }> {
  const server = startQuiesce(['nbd', 'serve', ...args]);
  started.push(server);
  let said = '';
  server.child.stdout!.on('data', (data: Buffer) => { said += data.toString(); });
  await waitFor(`a URI (${args.join(' ')})`, () => said.endsWith('\n') || server.child.exitCode !== null);
  return { ...server, uri: said.trim() };
}

async function stop(server: RunningCommand, signal: NodeJS.Signals = 'SIGINT'): Promise<void> {
  server.child.kill(signal);
  expect(await server.done).toMatchObject({ code: 0, signal: null, stderr: '' });
}

peers('qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy')('with clients', () => {
  test('its URI leads there; what clients write is in the image after Ctrl-C', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const server = await serve(image, '--socket', tmp('a b.sock'), '--export-name', 'my disk', '--description', 'of a test', '--persistent', '--allocation-depth');
    expect(server.uri).toBe(`nbd+unix:///my%20disk?socket=${tmp('a%20b.sock')}`);
    const { exports: [info] } = JSON.parse(await runOk('nbdinfo', ['--json', server.uri])) as { exports: Record<string, unknown>[] };
    expect(info).toMatchObject({
      'export-name': 'my disk', description: 'of a test', 'export-size': 16 << 20, is_read_only: false, can_multi_conn: true,
      contexts: ['base:allocation', 'qemu:allocation-depth'],
    });
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', server.uri]);
    await stop(server);
    expect(() => statSync(tmp('a b.sock'))).toThrow('ENOENT');
    await runOk('qemu-img', ['check', '-q', image]);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 7 1M 64k', image])).not.toContain('failed');
  });

  test('without --persistent it ends with its last client', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '4M');
    const server = await serve(image, '--port', '0', '--read-only');
    expect(server.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/$/);
    await runOk('nbdcopy', [server.uri, tmp('copy.raw')]);
    expect(await server.done).toMatchObject({ code: 0, stderr: '' });
    expect(await runOk('qemu-img', ['compare', image, tmp('copy.raw')])).toContain('identical');
  });

  test('an internal snapshot, and a persistent bitmap', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '4M');
    await runOk('qemu-io', ['-c', 'write -P 1 0 64k', image]);
    await runOk('qemu-img', ['snapshot', '-c', 'old', image]);
    await runOk('qemu-img', ['bitmap', '--add', image, 'since']);
    await runOk('qemu-io', ['-c', 'write -P 2 0 128k', image]);
    const old = await serve(image, '--socket', tmp('s'), '--snapshot', 'old', '--persistent');
    expect(await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 1 0 64k', '-c', 'read -P 0 64k 64k', old.uri])).not.toContain('failed');
    expect((await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', old.uri])).stderr).toContain('Permission denied');
    await stop(old, 'SIGTERM');
    const now = await serve(image, '--socket', tmp('s'), '--bitmap', 'since', '--read-only', '--persistent');
    const map = JSON.parse(await quiesceOk(['nbd', 'info', '--map', '--context', 'qemu:dirty-bitmap:since', '--json', now.uri])) as unknown;
    expect(map).toEqual([
      { offset: 0, length: 128 << 10, type: 1, description: 'dirty' },
      { offset: 128 << 10, length: (4 << 20) - (128 << 10), type: 0, description: 'clean' },
    ]);
    await stop(now);
  });

  test('a socket in use is refused, one that is dead replaced', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '4M');
    const first = await serve(image, '--socket', tmp('s'), '--persistent', '--read-only');
    await expectRefused(['nbd', 'serve', image, '--socket', tmp('s'), '--read-only'], `another server is at '${tmp('s')}' already`);
    await runOk('nbdinfo', ['--size', first.uri]);
    first.child.kill('SIGKILL');
    await first.done;
    const second = await serve(image, '--socket', tmp('s'), '--persistent', '--read-only');
    expect((await runOk('nbdinfo', ['--size', second.uri])).trim()).toBe(String(4 << 20));
    await stop(second);
  });
});

test('refusals are one line', async () => {
  await expectRefused(['nbd', 'serve', tmp('none.qcow2'), '--socket', tmp('s')], /none\.qcow2.*No such file/);
  await expectRefused(['nbd', 'serve', tmp('x'), '--socket', tmp('s'), '--port', '1'], '--socket excludes --port and --bind', 2);
  await expectRefused(['nbd', 'serve', tmp('x'), '--tls-any-client'], '--tls-any-client goes with --tls', 2);
  writeFileSync(tmp('plain'), '');
  await expectRefused(['nbd', 'serve', tmp('x'), '--tls', tmp('plain')], /plain/);
});
