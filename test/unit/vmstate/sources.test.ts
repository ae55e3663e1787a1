import { execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { once } from 'node:events';
import { describe, expect, test } from '@jest/globals';
import { KiB, MiB } from '../../../src/base/bytes.js';
import { openVmStateInput, type VmStateInput } from '../../../src/vmstate/sources.js';
import { VmStateWriter } from '../../../src/vmstate/writer.js';
import { randomBytes } from '../../support/random-bytes.js';
import { useTmp } from '../../support/tmp.js';
import { FakeArea, Gate, settle } from '../../support/vmstate-fakes.js';

const tmp = useTmp();

async function store(input: VmStateInput, chunkSize?: number, area = new FakeArea(chunkSize ?? 64 * KiB)): Promise<Uint8Array> {
  const writer = new VmStateWriter(area, { chunkSize });
  try {
    const total = await input.pump(writer);
    expect(await writer.finish()).toBe(total);
    return area.memory.subarray(0, total);
  } finally {
    await input.close();
    await writer.abort();
    expect(writer.bytesHeld).toBe(0);
  }
}

function expectSame(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.byteLength).toBe(expected.byteLength);
  expect(Buffer.compare(actual, expected)).toBe(0);
}

async function send(path: string, data: Uint8Array): Promise<void> {
  const socket = connect({ path });
  socket.end(data);
  await once(socket, 'close');
}

describe('openVmStateInput', () => {
  test('a file, with its size', async () => {
    const data = randomBytes(5 * MiB + 3);
    writeFileSync(tmp('state'), data);
    const input = await openVmStateInput(tmp('state'));
    expect(input.size).toBe(data.byteLength);
    expectSame(await store(input), data);
  });

  test('an empty file', async () => {
    writeFileSync(tmp('state'), '');
    expect((await store(await openVmStateInput(tmp('state')))).byteLength).toBe(0);
  });

  test('standard input that is a file continues where the shell left it', async () => {
    writeFileSync(tmp('state'), 'line\nstate');
    const stdin = openSync(tmp('state'), 'r');
    readSync(stdin, Buffer.alloc(5));
    expect(Buffer.from(await store(await openVmStateInput('-', { stdin }))).toString()).toBe('state');
    closeSync(stdin);
  });

  test('a FIFO, whose writer comes later', async () => {
    execFileSync('mkfifo', [tmp('fifo')]);
    const data = randomBytes(3 * MiB + 11);
    writeFileSync(tmp('data'), data);
    const input = await openVmStateInput(tmp('fifo'));
    const stored = store(input);
    await settle();
    const writer = spawn('sh', ['-c', `cat '${tmp('data')}' > '${tmp('fifo')}'`]);
    expectSame(await stored, data);
    if (writer.exitCode === null) await once(writer, 'exit');
  });

  test('standard input that is a pipe', async () => {
    execFileSync('mkfifo', [tmp('fifo')]);
    const data = randomBytes(MiB);
    writeFileSync(tmp('data'), data);
    const writer = spawn('sh', ['-c', `cat '${tmp('data')}' > '${tmp('fifo')}'`]);
    const stdin = openSync(tmp('fifo'), 'r');
    expectSame(await store(await openVmStateInput('-', { stdin })), data);
    if (writer.exitCode === null) await once(writer, 'exit');
  });

  test.each([512, 64 * KiB, undefined])('unix: takes one connection, chunk size %p', async (chunkSize) => {
    const data = randomBytes(chunkSize === 512 ? 300_001 : 4 * MiB + 99);
    const path = tmp('s');
    const input = await openVmStateInput(`unix:${path}`);
    const stored = store(input, chunkSize);
    await send(path, data);
    expectSame(await stored, data);
    expect(existsSync(path)).toBe(false);
  });

  test('unix: the peer waits while all chunks are being written', async () => {
    const path = tmp('s');
    const area = new FakeArea();
    const gate = new Gate();
    area.onSave = () => gate.opened;
    const input = await openVmStateInput(`unix:${path}`);
    const stored = store(input, 64 * KiB, area);
    const data = randomBytes(8 * MiB);
    let sent = false;
    const sender = send(path, data).then(() => { sent = true; });
    for (let turn = 0; turn < 20; turn++) await settle();
    expect([area.inFlight, area.saves.length, sent]).toEqual([8, 8, false]);
    gate.open();
    expectSame(await stored, data);
    await sender;
  });

  test('unix: a failing write ends the pump with its error', async () => {
    const path = tmp('s');
    const area = new FakeArea();
    area.onSave = (_, index) => { if (index === 3) throw new Error('disk on fire'); };
    const stored = store(await openVmStateInput(`unix:${path}`), 64 * KiB, area);
    const sender = connect({ path });
    sender.on('error', () => undefined);
    sender.write(randomBytes(8 * MiB));
    await expect(stored).rejects.toThrow('disk on fire');
    if (!sender.closed) await new Promise((resolve) => sender.once('close', resolve));
  });

  test('unix: a socket that a killed program left is replaced, anything else is not', async () => {
    const path = tmp('s');
    execFileSync('python3', ['-c', `import socket; socket.socket(socket.AF_UNIX).bind(${JSON.stringify(path)})`]);
    expect(statSync(path).isSocket()).toBe(true);
    const input = await openVmStateInput(`unix:${path}`);
    await expect(openVmStateInput(`unix:${path}`)).rejects.toMatchObject({ code: 'BUSY' });
    await input.close();
    expect(existsSync(path)).toBe(false);
    writeFileSync(path, 'precious');
    await expect(openVmStateInput(`unix:${path}`)).rejects.toMatchObject({ code: 'EXISTS' });
    expect(existsSync(path)).toBe(true);
  });

  test('unix: another listener is not disturbed', async () => {
    const path = tmp('s');
    let connections = 0;
    const server = createServer(() => { connections++; });
    await new Promise<void>((resolve) => { server.listen({ path }, resolve); });
    await expect(openVmStateInput(`unix:${path}`)).rejects.toThrow('another program already listens');
    await settle();
    expect(connections).toBe(0);
    await new Promise((resolve) => server.close(resolve));
  });

  test('unix: too long a name is refused, not cut', async () => {
    await expect(openVmStateInput(`unix:/${'x'.repeat(107)}`)).rejects.toThrow('more than the 107');
  });

  test('an abort signal ends waiting for a connection, for a FIFO, and for more data', async () => {
    const path = tmp('s');
    execFileSync('mkfifo', [tmp('fifo')]);
    for (const spec of [`unix:${path}`, tmp('fifo')]) {
      const controller = new AbortController();
      const stored = store(await openVmStateInput(spec, { signal: controller.signal }));
      await settle();
      controller.abort();
      await expect(stored).rejects.toMatchObject({ code: 'CANCELLED' });
    }
    const controller = new AbortController();
    const stored = store(await openVmStateInput(`unix:${path}`, { signal: controller.signal }));
    const sender = connect({ path });
    sender.write('some');
    await new Promise((resolve) => setTimeout(resolve, 50));
    controller.abort();
    await expect(stored).rejects.toMatchObject({ code: 'CANCELLED' });
    sender.destroy();
    expect(existsSync(path)).toBe(false);
  });

  test('what is missing or a directory is named', async () => {
    await expect(openVmStateInput(tmp('none'))).rejects.toMatchObject({ code: 'NOT_FOUND', message: `could not open '${tmp('none')}': No such file or directory` });
    await expect(openVmStateInput(tmp())).rejects.toThrow('is a directory');
  });
});
