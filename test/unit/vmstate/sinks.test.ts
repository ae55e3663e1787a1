import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, statSync, symlinkSync, lstatSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { describe, expect, test } from '@jest/globals';
import { KiB, MiB } from '../../../src/base/bytes.js';
import { VmStateReader } from '../../../src/vmstate/reader.js';
import { openVmStateOutput, sendState, type VmStateOutputOptions } from '../../../src/vmstate/sinks.js';
import { randomBytes } from '../../support/random-bytes.js';
import { useTmp } from '../../support/tmp.js';
import { FakeSource, settle } from '../../support/vmstate-fakes.js';

const tmp = useTmp();

async function deliver(spec: string, data: Uint8Array, options?: VmStateOutputOptions): Promise<void> {
  const output = await openVmStateOutput(spec, options);
  try {
    await sendState(new VmStateReader(new FakeSource(data)), output);
    await output.finish();
  } finally {
    await output.abort();
  }
}

/** A listener that collects what one peer sends. */
async function listen(path: string): Promise<{ received: Promise<Buffer>; server: ReturnType<typeof createServer> }> {
  const server = createServer();
  await new Promise<void>((resolve) => { server.listen({ path }, resolve); });
  const received = (async () => {
    const [socket] = await once(server, 'connection') as [Socket];
    const parts: Buffer[] = [];
    for await (const part of socket) parts.push(part as Buffer);
    server.close();
    return Buffer.concat(parts);
  })();
  return { received, server };
}

describe('openVmStateOutput', () => {
  test('a new file appears when it is whole', async () => {
    const data = randomBytes(3 * MiB + 5);
    const output = await openVmStateOutput(tmp('state'));
    await output.write(data);
    expect(existsSync(tmp('state'))).toBe(false);
    await output.finish();
    expect(Buffer.compare(readFileSync(tmp('state')), data)).toBe(0);
    expect(readdirSync(tmp())).toEqual(['state']);
  });

  test('an existing file keeps its mode and its links, and its content until the end', async () => {
    mkdirSync(tmp('real'));
    writeFileSync(tmp('real/state'), 'old');
    chmodSync(tmp('real/state'), 0o640);
    symlinkSync('real/state', tmp('link'));
    const failed = await openVmStateOutput(tmp('link'));
    await failed.write(Buffer.from('half'));
    await failed.abort();
    expect(readFileSync(tmp('link'), 'utf8')).toBe('old');
    await deliver(tmp('link'), Buffer.from('new'));
    expect(lstatSync(tmp('link')).isSymbolicLink()).toBe(true);
    expect(readFileSync(tmp('real/state'), 'utf8')).toBe('new');
    expect(statSync(tmp('real/state')).mode & 0o777).toBe(0o640);
    expect(readdirSync(tmp('real'))).toEqual(['state']);
  });

  test('standard output that is a file is appended to where it stands', async () => {
    const stdout = openSync(tmp('out'), 'w');
    execFileSync('sh', ['-c', 'printf head >&3'], { stdio: ['ignore', 'ignore', 'ignore', stdout] });
    await deliver('-', Buffer.from('state'), { stdout });
    closeSync(stdout);
    expect(readFileSync(tmp('out'), 'utf8')).toBe('headstate');
  });

  test('a FIFO whose reader comes later', async () => {
    execFileSync('mkfifo', [tmp('fifo')]);
    const data = randomBytes(2 * MiB + 1);
    const delivered = deliver(tmp('fifo'), data);
    await settle();
    const reader = spawn('sh', ['-c', `cat '${tmp('fifo')}' > '${tmp('copy')}'`]);
    await delivered;
    if (reader.exitCode === null) await once(reader, 'exit');
    expect(Buffer.compare(readFileSync(tmp('copy')), data)).toBe(0);
    expect(lstatSync(tmp('fifo')).isFIFO()).toBe(true);
  });

  test('a device is written as it is', async () => {
    await deliver('/dev/null', randomBytes(2 * MiB));
    expect(lstatSync('/dev/null').isCharacterDevice()).toBe(true);
    await expect(deliver('/dev/full', randomBytes(MiB))).rejects.toMatchObject({
      code: 'NO_SPACE', message: "could not write the VM state to '/dev/full': No space left on device",
    });
  });

  test('unix: connects to a listener and sends everything', async () => {
    const data = randomBytes(6 * MiB + 7);
    const { received } = await listen(tmp('s'));
    await deliver(`unix:${tmp('s')}`, data);
    expect(Buffer.compare(await received, data)).toBe(0);
  });

  test('unix: nobody listens', async () => {
    await expect(openVmStateOutput(`unix:${tmp('s')}`)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(openVmStateOutput(tmp())).rejects.toThrow('is a directory');
  });

  test.each(['unix', 'fifo'])('a peer that goes away is an error that names it: %s', async (kind) => {
    const path = tmp('peer');
    let spec = path;
    let leave = (): void => undefined;
    if (kind === 'unix') {
      spec = `unix:${path}`;
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        leave = () => { socket.destroy(); server.close(); };
      });
      await new Promise<void>((resolve) => { server.listen({ path }, resolve); });
    } else {
      execFileSync('mkfifo', [path]);
      const fd = openSync(path, 'r+');
      leave = () => closeSync(fd);
    }
    const output = await openVmStateOutput(spec);
    await output.write(Buffer.from('some'));
    await settle();
    leave();
    const writeOn = (async () => {
      for (let n = 0; n < 20; n++) await output.write(randomBytes(MiB));
    })();
    await expect(writeOn).rejects.toThrow(`could not write the VM state to '${spec}': `);
    await output.abort();
  });

  test('an abort signal ends a write that the peer does not take, and waiting for a reader', async () => {
    const controller = new AbortController();
    const server = createServer((socket) => socket.pause());
    await new Promise<void>((resolve) => { server.listen({ path: tmp('s') }, resolve); });
    const output = await openVmStateOutput(`unix:${tmp('s')}`, { signal: controller.signal });
    const writing = output.write(randomBytes(8 * MiB));
    execFileSync('mkfifo', [tmp('fifo')]);
    const opening = openVmStateOutput(tmp('fifo'), { signal: controller.signal });
    await settle();
    controller.abort();
    await expect(writing).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(opening).rejects.toMatchObject({ code: 'CANCELLED' });
    await output.abort();
    server.close();
  });
});

describe('sendState', () => {
  test.each([0, 1, MiB, 3 * MiB + 5])('%i bytes: the last byte waits for beforeLast', async (bytes) => {
    const data = randomBytes(bytes);
    const { received } = await listen(tmp('s'));
    const output = await openVmStateOutput(`unix:${tmp('s')}`);
    let sent = 0;
    const source = new FakeSource(data);
    const counting = { name: output.name, heldBack: output.heldBack, write: (part: Uint8Array) => { sent += part.byteLength; return output.write(part); },
      finish: () => output.finish(), abort: () => output.abort() };
    let heldBack = -1;
    await sendState(new VmStateReader(source, { chunkSize: 64 * KiB }), counting, async () => {
      heldBack = data.byteLength - sent;
      expect(source.inFlight).toBe(0);
      await settle();
      expect(data.byteLength - sent).toBe(heldBack);
    });
    expect(heldBack).toBe(Math.min(bytes, 1));
    await counting.finish();
    expect(Buffer.compare(await received, data)).toBe(0);
  });
});
