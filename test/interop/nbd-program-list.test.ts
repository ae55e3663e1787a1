/** `quiesce-nbd -L` beside `qemu-nbd -L`, on servers of all kinds: the same text, the same errors. */
import { writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { u16, u32, u64 } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { standIn } from '../support/programs.js';
import { run, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();
const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  for (const socket of sockets) socket.destroy();
});

async function both(...args: string[]): Promise<readonly RunResult[]> {
  const theirs = await run('qemu-nbd', ['-L', ...args], { timeoutMs: 30_000 });
  return [theirs, await run(standIn('qemu-nbd', tmp('bin')), ['-L', ...args], { timeoutMs: 30_000 })];
}

const NBDKIT: Readonly<Record<string, readonly string[]>> = {
  'a disk': ['memory', '1M'], 'a read-only one': ['-r', 'memory', '1M'], 'no structured replies': ['--no-sr', 'memory', '1M'], 'oldstyle': ['-o', 'memory', '1M'],
  'plain newstyle': ['--mask-handshake=0', 'memory', '1M'], 'several exports': ['--filter=exportname', 'memory', '1M', 'exportname=a', 'exportname=é', 'exportname-list=explicit', 'exportdesc=fixed:a disk'],
  'none': ['--filter=exportname', 'memory', '1M', 'exportname-list=explicit'], 'an empty disk': ['memory', '0'], 'an odd size': ['memory', '1000'], 'fewer commands': ['--filter=nozero', '--filter=nocache', 'memory', '1M'],
  'block sizes': ['--filter=blocksize-policy', 'memory', '1M', 'blocksize-minimum=4096', 'blocksize-preferred=8192', 'blocksize-maximum=65536', 'blocksize-error-policy=error'],
};

peers('nbdkit', 'qemu-nbd')('nbdkit', () => {
  test.each(Object.entries(NBDKIT))('with %s', async (_, args) => {
    await start('nbdkit', nbdkitArgs(tmp('s'), ...args), tmp('s'));
    const [theirs, ours] = await both('-k', tmp('s'));
    expect(ours).toEqual(theirs);
  });

  test('with TLS, with the right key, a wrong name, no key, and a key where there is no TLS', async () => {
    writeFileSync(tmp('keys.psk'), 'alice:0123456789abcdef0123456789abcdef\n');
    await start('nbdkit', nbdkitArgs(tmp('tls'), '--tls=require', `--tls-psk=${tmp('keys.psk')}`, 'memory', '1M'), tmp('tls'));
    await start('nbdkit', nbdkitArgs(tmp('plain'), 'memory', '1M'), tmp('plain'));
    const key = (username: string, endpoint = 'client'): string[] => ['--object', `tls-creds-psk,id=t,dir=${tmp()},username=${username},endpoint=${endpoint}`, '--tls-creds', 't'];
    for (const args of [['-k', tmp('tls')], [...key('alice'), '-k', tmp('tls')], [...key('bob'), '-k', tmp('tls')], [...key('alice', 'server'), '-k', tmp('tls')], [...key('alice'), '-k', tmp('plain')]]) {
      const [theirs, ours] = await both(...args);
      expect({ args, ...ours }).toEqual({ args, ...theirs });
    }
  });
});

/** Answers each option as `answers` says, by its number; null hangs up. */
async function scripted(path: string, greeting: Buffer, answers: (option: number) => Buffer | null): Promise<void> {
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    let heard = Buffer.alloc(0);
    let needed = 4;
    socket.on('data', (data) => {
      heard = Buffer.concat([heard, data]);
      if (needed === 4 && heard.byteLength >= 4) {
        heard = heard.subarray(4);
        needed = 16;
      }
      while (needed === 16 && heard.byteLength >= 16 && heard.byteLength >= 16 + heard.readUInt32BE(12)) {
        const option = heard.readUInt32BE(8);
        heard = heard.subarray(16 + heard.readUInt32BE(12));
        const answer = answers(option);
        if (answer === null) return void socket.destroy();
        socket.write(answer);
      }
    });
    socket.write(greeting);
  });
  servers.push(server);
  await new Promise<void>((resolve) => { server.listen(path, resolve); });
}

const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]);
const reply = (option: number, type: number, data = ''): Buffer => Buffer.concat([u64(0x3_e889_0455_65a9n), u32(option), u32(type), u32(data.length), Buffer.from(data)]);
const [ABORT, LIST, STRUCTURED, LIST_META] = [2, 3, 8, 9];
const ERRORS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0x55].map((number) => 0x8000_0000 + number);
const oneExport = (option: number): Buffer => {
  switch (option) {
    case LIST: return Buffer.concat([reply(LIST, 2, '\0\0\0\u0001a'), reply(LIST, 1)]);
    case STRUCTURED: case ABORT: return reply(option, 1);
    case LIST_META: return reply(option, 1);
    default: return Buffer.concat([Buffer.concat([u64(0x3_e889_0455_65a9n), u32(option), u32(3), u32(12), u16(0), u64(2 ** 20), u16(0x0d6d)]), reply(option, 1)]);
  }
};

peers('qemu-nbd')('a server that refuses', () => {
  test.each([['the list', LIST], ['structured replies', STRUCTURED], ['the list of contexts', LIST_META]])('%s, with every error', async (_, refused) => {
    const differing: object[] = [];
    for (const error of ERRORS) {
      for (const text of ['', 'for a reason']) {
        const path = tmp(`s-${error}-${text.length}`);
        await scripted(path, GREETING, (option) => option === refused ? reply(option, error, text) : oneExport(option));
        const [theirs, ours] = await both('-k', path);
        if (JSON.stringify(ours) !== JSON.stringify(theirs)) differing.push({ error, text, theirs, ours });
      }
    }
    expect(differing).toEqual([]);
  }, 120_000);

  test('to speak NBD, or hangs up', async () => {
    for (const [index, words] of ['', 'NBDMAG', 'GARBAGE!', 'NBDMAGICIHAVE', 'NBDMAGICGARBAGE!', 'NBDMAGICIHAVEOPT'].entries()) {
      const path = tmp(`rude-${index}`);
      const server = createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => undefined).end(words);
      });
      servers.push(server);
      await new Promise<void>((resolve) => { server.listen(path, resolve); });
      const [theirs, ours] = await both('-k', path);
      expect({ words, ...ours }).toEqual({ words, ...theirs });
    }
    await scripted(tmp('mute'), GREETING, () => null);
    const [theirs, ours] = await both('-k', tmp('mute'));
    expect(ours).toEqual(theirs);
  });

  test('nobody there, no such host, and ports of all kinds', async () => {
    for (const args of [['-k', tmp('nobody')], ['-b', '127.0.0.1', '-p', '1'], ['-b', '127.0.0.1', '-p', 'abc'], ['-b', '127.0.0.1', '-p', '0'], ['-b', 'no.such.host.invalid'], ['-p', '-1']]) {
      const [theirs, ours] = await both(...args);
      expect({ args, ...ours }).toEqual({ args, ...theirs });
    }
  });
});
