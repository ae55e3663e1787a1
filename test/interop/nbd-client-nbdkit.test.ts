/** Our client on nbdkit: its plugins, its filters that make trouble, its old protocols. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { NbdClient, nbdServerFacts, openNbdName } from '../../src/index.js';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();

async function serve(...args: string[]): Promise<string> {
  const socket = tmp('socket');
  await start('nbdkit', nbdkitArgs(socket, ...args), socket);
  return socket;
}

async function open(socket: string, options: { readonly connections?: number; readonly reconnectDelayMs?: number } = {}): Promise<NbdClient> {
  return NbdClient.open({ address: { type: 'unix', path: socket }, ...options });
}

/** The pattern plugin: every 8 bytes hold their own offset. Looks at some of them, and at the last. */
function isPattern(buffer: Uint8Array, offset: number): boolean {
  const view = new DataView(buffer.buffer, buffer.byteOffset);
  for (let at = 0; at < buffer.byteLength; at += 8 * 61) if (Number(view.getBigUint64(at)) !== offset + at) return false;
  return Number(view.getBigUint64(buffer.byteLength - 8)) === offset + buffer.byteLength - 8;
}

peers('nbdkit')('on nbdkit', () => {
  test.each([
    ['fixed newstyle', [], 'newstyle-fixed'], ['without structured replies', ['--no-sr'], 'newstyle-fixed'],
    ['plain newstyle', ['--mask-handshake=0'], 'newstyle'], ['oldstyle', ['-o'], 'oldstyle'],
  ])('the pattern comes through: %s', async (_what, flags, protocol) => {
    const socket = await serve(...flags, 'pattern', '64M');
    const facts = await nbdServerFacts({ address: { type: 'unix', path: socket }, exportName: '' });
    expect(facts).toMatchObject({ protocol, exports: [{ info: { size: 64 * 1024 * 1024 } }] });
    const client = await open(socket);
    expect(client.readOnly).toBe(true);
    await Promise.all(Array.from({ length: 40 }, async (_, index) => {
      const buffer = new Uint8Array(8 * (1 + index * 4001));
      await client.read(index * 160_000, buffer);
      expect(isPattern(buffer, index * 160_000)).toBe(true);
    }));
    await client.close();
  });

  test('extents of sparse data', async () => {
    const socket = await serve('data', 'data= @4194304 1 @8388608 0x55*65536 @16777215 0 ');
    await using driver = { driver: await openNbdName(`nbd+unix:///?socket=${socket}`), [Symbol.asyncDispose]: () => driver.driver.close() };
    const found: [string, number][] = [];
    for (let offset = 0; offset < driver.driver.length();) {
      const { kind, bytes } = await driver.driver.blockStatus(offset, driver.driver.length() - offset);
      found.push([kind, bytes]);
      offset += bytes;
    }
    const map = JSON.parse((await run('nbdinfo', ['--map', '--json', `nbd+unix:///?socket=${socket}`])).stdout) as { type: number; length: number }[];
    expect(found).toEqual(map.map(({ type, length }) => [(type & 2) === 0 ? 'data' : 'zero', length]));
    expect(found.length).toBeGreaterThan(3);
  });

  test('errors of the error filter reach the caller, each for its own request', async () => {
    const socket = await serve('--filter=error', 'memory', '16M', 'error-pread=ENOMEM', 'error-pread-rate=50%', 'error-pwrite=ENOSPC', 'error-pwrite-rate=50%');
    const client = await open(socket, { connections: 2 });
    const outcomes = await Promise.allSettled(Array.from({ length: 200 }, (_, index) => index % 2 === 0
      ? client.read(index * 4096, new Uint8Array(4096)) : client.write(index * 4096, new Uint8Array(4096).fill(index))));
    const errnos = outcomes.map((outcome) => outcome.status === 'fulfilled' ? 'fine' : (outcome.reason as { errno: string }).errno);
    expect([...new Set(errnos)].toSorted()).toEqual(['ENOMEM', 'ENOSPC', 'fine']);
    expect(errnos.every((errno, index) => errno === 'fine' || errno === (index % 2 === 0 ? 'ENOMEM' : 'ENOSPC'))).toBe(true);
    await client.close();
  });

  test('delays of replies do not mix them up', async () => {
    const socket = await serve('--filter=delay', 'pattern', '16M', 'delay-read=300ms');
    const client = await open(socket, { connections: 4 });
    const begun = performance.now();
    await Promise.all(Array.from({ length: 64 }, async (_, index) => {
      const buffer = new Uint8Array(4096);
      await client.read(index * 4096, buffer);
      expect(isPattern(buffer, index * 4096)).toBe(true);
    }));
    // one after the other they would take 19 seconds
    expect(performance.now() - begun).toBeLessThan(10_000);
    await client.close();
  });

  test('a block size policy that refuses all else is kept', async () => {
    const socket = await serve('--filter=blocksize-policy', 'memory', '4M',
      'blocksize-minimum=4096', 'blocksize-preferred=8192', 'blocksize-maximum=65536', 'blocksize-error-policy=error');
    const driver = await openNbdName(`nbd+unix:///?socket=${socket}`);
    expect(driver.limits).toMatchObject({ requestAlignment: 4096, optTransfer: 8192 });
    expect(driver.client.info.maximumBlock).toBe(65_536);
    await driver.client.write(4096, new Uint8Array(1024 * 1024).fill(3));
    await driver.client.writeZeroes(4096, 4096);
    const buffer = new Uint8Array(1024 * 1024);
    await driver.client.read(4096, buffer);
    expect([buffer[0], buffer[4095], buffer[4096], buffer[1_048_575]]).toEqual([0, 0, 3, 3]);
    await expect(driver.client.read(1, new Uint8Array(1))).rejects.toMatchObject({ errno: 'EINVAL' });
    await driver.close();
  });

  test('requests wait while the pause filter holds them', async () => {
    const control = tmp('control');
    const socket = await serve('--filter=pause', 'memory', '1M', `pause-control=${control}`);
    const client = await open(socket);
    const tell = async (command: string): Promise<string> => {
      const to = connect({ path: control });
      to.write(command);
      const [data] = await once(to, 'data') as [Buffer];
      to.end();
      return data.toString();
    };
    expect(await tell('p')).toBe('P');
    let done = false;
    const write = client.write(0, new Uint8Array(4096).fill(1)).then(() => { done = true; });
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(done).toBe(false);
    expect(await tell('r')).toBe('R');
    await write;
    await client.close();
  });

  test('the goodbye is heard: a server that ends with its last client does', async () => {
    const socket = tmp('socket');
    const server = await start('nbdkit', nbdkitArgs(socket, '--filter=exitlast', 'memory', '1M'), socket);
    const client = await open(socket, { connections: 3 });
    expect(client.connections).toBe(3);
    await client.close();
    await new Promise((resolve) => {
      if (server.process.exitCode === null) server.process.once('exit', resolve);
      else resolve(null);
    });
  });

  test('several exports are listed with their descriptions', async () => {
    const socket = await serve('--filter=exportname', 'memory', '1M', 'exportname=a', 'exportname=b', 'exportname-list=explicit', 'exportdesc=fixed:a disk');
    const facts = await nbdServerFacts({ address: { type: 'unix', path: socket } });
    expect(facts.exports.map(({ name, description }) => [name, description])).toEqual([['a', 'a disk'], ['b', 'a disk']]);
    expect(facts.exports[0]!.info).toMatchObject({ size: 1_048_576 });
  });
});
