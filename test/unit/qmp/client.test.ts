import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { QmpClient } from '../../../src/qmp/client.js';
import { decodeMessage, LineSplitter, MAX_LINE } from '../../../src/qmp/wire.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}\r\n';

interface Command {
  readonly execute: string;
  readonly arguments?: unknown;
  readonly id: number;
}

let server: Server | null = null;
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  if (server !== null) await new Promise((resolve) => server!.close(resolve));
  server = null;
});

/** A QMP server whose answers the test writes; `null` answers nothing. */
async function serve(answer: (command: Command, socket: Socket) => string | null, greeting = GREETING): Promise<string> {
  const path = tmp('qmp');
  server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.write(greeting);
    const lines = new LineSplitter();
    socket.on('data', (data: Buffer) => {
      for (const line of lines.push(data)) {
        const command = JSON.parse(line) as Command;
        const reply = command.execute === 'qmp_capabilities' ? `{"return": {}, "id": ${command.id}}\n` : answer(command, socket);
        if (reply !== null) socket.write(reply);
      }
    });
  });
  await new Promise<void>((resolve) => { server!.listen({ path }, resolve); });
  return path;
}

describe('QmpClient', () => {
  test('commands are answered by id, in any order', async () => {
    const held: string[] = [];
    const path = await serve(({ execute, id }, socket) => {
      held.push(`{"return": "${execute}", "id": ${id}}\n`);
      if (held.length === 3) for (const reply of held.toReversed()) socket.write(reply);
      return null;
    });
    const qmp = await QmpClient.connect(path);
    expect(qmp.version).toBe('7.2.22');
    expect(await Promise.all(['a', 'b', 'c'].map((name) => qmp.execute(name)))).toEqual(['a', 'b', 'c']);
    qmp.close();
  });

  test('arguments go out, errors come back with class and description', async () => {
    const path = await serve(({ arguments: args, id }) => {
      expect(args).toEqual({ uri: 'unix:/x' });
      return `{"error": {"class": "DeviceNotFound", "desc": "no such thing"}, "id": ${id}}\n`;
    });
    const qmp = await QmpClient.connect(path);
    await expect(qmp.execute('migrate', { uri: 'unix:/x' })).rejects.toMatchObject({
      code: 'PEER', errorClass: 'DeviceNotFound', message: "QEMU refused 'migrate': no such thing",
    });
    qmp.close();
  });

  test('events reach subscribers, cut anywhere on the wire', async () => {
    const path = await serve(({ id }, socket) => {
      const text = `{"event": "STOP", "timestamp": {}}\n{"event": "MIGRATION", "data": {"status": "äctive"}}\n{"event": "MIGRATION", "data": {"status": "completed"}}\n{"return": {}, "id": ${id}}\n`;
      for (const byte of Buffer.from(text)) socket.write(Buffer.of(byte));
      return null;
    });
    const qmp = await QmpClient.connect(path);
    const names: string[] = [];
    const unsubscribe = qmp.subscribe((event) => names.push(`${event.name} ${String(event.data['status'])}`));
    const completed = qmp.waitEvent('MIGRATION', (data) => data['status'] === 'completed');
    await qmp.execute('go');
    expect((await completed).data).toEqual({ status: 'completed' });
    expect(names).toEqual(['STOP undefined', 'MIGRATION äctive', 'MIGRATION completed']);
    unsubscribe();
    await qmp.execute('go');
    expect(names.length).toBe(3);
    qmp.close();
  });

  test('a lost connection fails everything that waits, and every later call', async () => {
    const path = await serve((_, socket) => { socket.destroy(); return null; });
    const qmp = await QmpClient.connect(path);
    const event = qmp.waitEvent('STOP');
    const outcomes = await Promise.allSettled([event, qmp.execute('x')]);
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'PROTOCOL' } });
    await expect(qmp.execute('y')).rejects.toMatchObject({ code: 'PROTOCOL' });
  });

  test('close ends waiting calls', async () => {
    const qmp = await QmpClient.connect(await serve(() => null));
    const waiting = qmp.execute('x');
    qmp.close();
    await expect(waiting).rejects.toMatchObject({ code: 'CLOSED' });
  });

  test('signals and timeouts end waiting, and a late reply does no harm', async () => {
    let late = '';
    const path = await serve(({ execute, id }) => {
      if (execute === 'slow') {
        late = `{"return": 1, "id": ${id}}\n`;
        return null;
      }
      return `${late}{"return": 2, "id": ${id}}\n`;
    });
    const qmp = await QmpClient.connect(path);
    await expect(qmp.execute('slow', undefined, { timeoutMs: 20 })).rejects.toMatchObject({ code: 'PROTOCOL' });
    expect(await qmp.execute('fast')).toBe(2);
    const controller = new AbortController();
    const waiting = qmp.execute('slow', undefined, { signal: controller.signal });
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(qmp.waitEvent('X', undefined, { signal: controller.signal })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await qmp.execute('fast')).toBe(2);
    qmp.close();
  });

  test('a socket that greets nobody is named', async () => {
    const path = await serve(() => null, '');
    await expect(QmpClient.connect(path, { timeoutMs: 30 })).rejects.toThrow(`'${path}' did not send the greeting (another client may hold the connection) within 30 ms`);
    await expect(QmpClient.connect(tmp('none'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test.each(['SSH-2.0-OpenSSH\r\n', '[1]\n', '{"hello": 1}\n', '{"event": 3}\n'])('a peer that speaks something else: %j', async (greeting) => {
    await expect(QmpClient.connect(await serve(() => null, greeting))).rejects.toMatchObject({ code: 'PROTOCOL' });
  });
});

describe('the wire', () => {
  test('a line without an end is bounded', () => {
    const lines = new LineSplitter();
    const part = Buffer.alloc(MAX_LINE / 4, 0x20);
    for (let n = 0; n < 4; n++) expect(lines.push(part)).toEqual([]);
    expect(() => lines.push(part)).toThrow('more than');
  });

  test('errors and greetings decode', () => {
    expect(decodeMessage('{"QMP": {}}')).toEqual({ kind: 'greeting', version: 'unknown' });
    expect(decodeMessage('{"error": {"class": "A", "desc": "b"}, "id": 3}')).toEqual({ kind: 'error', id: 3, errorClass: 'A', description: 'b' });
  });
});
