import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Random, systemClock, type Clock } from '../../../src/base/clock.js';
import { openChardev } from '../../../src/daemon/chardev.js';
import { QmpCommandError } from '../../../src/qmp/command-error.js';
import { QmpServer, type CommandTable } from '../../../src/qmp/server.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const version = { major: 1, minor: 2, micro: 3, package: 'test' };
const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

async function serve(commands: CommandTable, options: { readonly clock?: Clock; readonly several?: boolean } = {}): Promise<{ server: QmpServer; path: string }> {
  const server = new QmpServer({ commands, version, clock: options.clock ?? systemClock });
  const path = tmp('monitor');
  if (options.several === true) {
    const listener = createServer({ allowHalfOpen: true }, (socket) => void server.attach(socket));
    await new Promise<void>((resolve) => { listener.listen(path, resolve); });
    open.push(() => server.close(), () => new Promise((resolve) => { listener.close(resolve); }));
  } else {
    const chardev = await openChardev('monitor', { kind: 'socket', address: { type: 'unix', path }, server: true, wait: false, reconnectSeconds: 0 }, null);
    chardev.setFrontend((stream) => { server.attach(stream); });
    open.push(() => server.close(), () => Promise.resolve(chardev.close()));
  }
  return { server, path };
}

interface Client {
  readonly socket: Socket;
  readonly text: () => string;
  readonly send: (...lines: string[]) => void;
  /** Until so many messages are here, besides the greeting. */
  readonly messages: (count: number) => Promise<Record<string, unknown>[]>;
}

function client(path: string): Client {
  const socket = connect({ path });
  let text = '';
  socket.setEncoding('utf8').on('data', (data: string) => { text += data; }).on('error', () => undefined);
  const lines = (): string[] => text.split('\r\n').slice(0, -1);
  return {
    socket,
    text: () => text,
    send: (...sent) => { socket.write(sent.map((line) => `${line}\n`).join('')); },
    messages: async (count) => {
      for (let attempt = 0; attempt < 500 && lines().length <= count; attempt++) await sleep(10);
      return lines().slice(1).map((line) => JSON.parse(line) as Record<string, unknown>);
    },
  };
}

const CAPABILITIES = '{"execute":"qmp_capabilities"}';
const REPLY = '{"return": {}}';

describe('commands', () => {
  test('wait for as long as they are held, in their order', async () => {
    const done: string[] = [];
    const { server, path } = await serve({ quit: () => { done.push('quit'); }, block_resize: () => { done.push('block_resize'); } });
    const letGo = server.holdCommands();
    const held = client(path);
    held.send(CAPABILITIES, '{"execute":"quit"}', '{"execute":"block_resize","arguments":{"size":1}}');
    for (let attempt = 0; attempt < 500 && held.text() === ''; attempt++) await sleep(10);
    await sleep(50);
    expect(held.text().split('\r\n')).toEqual([expect.stringContaining('"QMP"'), '']);
    letGo();
    await held.messages(3);
    expect(done).toEqual(['quit', 'block_resize']);
    held.socket.destroy();
  });

  test('one that the schema does not know cannot be served', () => {
    expect(() => new QmpServer({ commands: { 'no-such': () => undefined }, version, clock: systemClock })).toThrow("the command 'no-such' is not in the schema");
  });

  test('arguments arrive checked; results and errors go out', async () => {
    const { path } = await serve({
      'block_resize': ({ size }) => { throw new QmpCommandError('DeviceNotFound', `no device for ${size as bigint}`); },
      'query-jobs': () => [{ 'id': 'j', 'current-progress': 2n ** 63n }],
      'quit': () => { throw new Error('plain'); },
    });
    const { send, messages } = client(path);
    send(CAPABILITIES, '{"execute":"block_resize","arguments":{"size":9007199254740993}}', '{"execute":"query-jobs"}', '{"execute":"quit"}', '{"execute":"job-pause"}');
    expect((await messages(5)).slice(1)).toEqual([
      { error: { class: 'DeviceNotFound', desc: 'no device for 9007199254740993' } },
      { return: [{ 'current-progress': 2 ** 63, 'id': 'j' }] },
      { error: { class: 'GenericError', desc: 'plain' } },
      { error: { class: 'CommandNotFound', desc: 'The command job-pause has not been found' } },
    ]);
  });

  test('one at a time, in order, over all monitors', async () => {
    let running = 0;
    let most = 0;
    const order: string[] = [];
    const { path } = await serve({
      'job-pause': async ({ id }) => {
        most = Math.max(most, ++running);
        await sleep(2);
        order.push(id as string);
        running--;
      },
    }, { several: true });
    const clients = ['a', 'b', 'c'].map((name) => ({ name, monitor: client(path) }));
    for (const { name, monitor } of clients) monitor.send(CAPABILITIES, ...Array.from({ length: 10 }, (_, index) => `{"execute":"job-pause","arguments":{"id":"${name}${index}"}}`));
    for (const { monitor } of clients) expect(await monitor.messages(11)).toHaveLength(11);
    expect(most).toBe(1);
    for (const { name } of clients) expect(order.filter((id) => id.startsWith(name))).toEqual(Array.from({ length: 10 }, (_, index) => `${name}${index}`));
  });

  test('what came before the end of the input is carried out and answered', async () => {
    const { path } = await serve({ 'job-pause': () => sleep(5) });
    const { socket, send, messages } = client(path);
    send(CAPABILITIES, ...Array.from({ length: 5 }, () => '{"execute":"job-pause","arguments":{"id":"x"}}'));
    const closed = new Promise((resolve) => { socket.once('close', resolve); });
    socket.end();
    expect(await messages(6)).toHaveLength(6);
    await closed;
  });
});

describe('clients', () => {
  test('the next one is greeted when the former has gone', async () => {
    const { path } = await serve({});
    const first = client(path);
    await sleep(30);
    const second = client(path);
    await sleep(50);
    expect([first.text().startsWith('{"QMP"'), second.text()]).toEqual([true, '']);
    first.socket.destroy();
    second.send(CAPABILITIES);
    expect(await second.messages(1)).toEqual([{ return: {} }]);
  });

  test('one that goes amid a command harms nobody', async () => {
    let done = 0;
    const { path } = await serve({
      'job-pause': async () => {
        await sleep(20);
        done++;
      },
    });
    const first = client(path);
    first.send(CAPABILITIES, ...Array.from({ length: 20 }, () => '{"execute":"job-pause","arguments":{"id":"x"}}'));
    await first.messages(1);
    first.socket.destroy();
    const second = client(path);
    second.send(CAPABILITIES, '{"execute":"query-version"}');
    expect(await second.messages(2)).toHaveLength(2);
    // the one that ran ends; of those behind it most were never begun
    expect(done).toBeLessThan(10);
  });

  test('one that does not read is not read from, and its replies stay bounded', async () => {
    let calls = 0;
    const { path } = await serve({
      'query-jobs': () => {
        calls++;
        return [{ id: 'x'.repeat(100_000) }];
      },
    });
    const socket = connect({ path });
    socket.on('error', () => undefined).pause();
    socket.write(`${CAPABILITIES}${'{"execute":"query-jobs"}'.repeat(2000)}`);
    await sleep(300);
    const before = calls;
    await sleep(100);
    expect(calls).toBe(before);
    expect(calls).toBeLessThan(50);
    let received = 0;
    socket.on('data', (data) => { received += data.byteLength; }).resume();
    for (let attempt = 0; attempt < 500 && calls < 2000; attempt++) await sleep(10);
    expect(calls).toBe(2000);
    expect(received).toBeGreaterThan(100_000_000);
    socket.destroy();
  });

  test('one that lets events pile up is let go', async () => {
    const { path, server } = await serve({});
    const idle = client(path);
    idle.send(CAPABILITIES);
    await idle.messages(1);
    idle.socket.pause();
    const closed = new Promise((resolve) => { idle.socket.once('close', resolve); });
    for (let index = 0; index < 1500; index++) server.emit('BLOCK_IMAGE_CORRUPTED', { device: '', msg: 'x'.repeat(65_536), fatal: true });
    idle.socket.resume();
    await closed;
    expect(idle.text().length).toBeLessThan(80_000_000);
  });
});

describe('events', () => {
  test('reach every client that has negotiated, before the reply of the command that caused them', async () => {
    const { path, server } = await serve({ 'job-pause': () => server.emit('JOB_STATUS_CHANGE', { id: 'j', status: 'paused' }) },
      { several: true, clock: { ...systemClock, wallMs: () => 1_700_000_000_123.456 } });
    const [first, second, third] = [client(path), client(path), client(path)];
    first.send(CAPABILITIES);
    second.send(CAPABILITIES);
    await Promise.all([first.messages(1), second.messages(1), third.messages(0)]);
    first.send('{"execute":"job-pause","arguments":{"id":"j"}}');
    await first.messages(3);
    await second.messages(2);
    const event = '{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "event": "JOB_STATUS_CHANGE", "data": {"status": "paused", "id": "j"}}';
    expect(first.text().split('\r\n').slice(1, -1)).toEqual([REPLY, event, REPLY]);
    expect(second.text().split('\r\n').slice(1, -1)).toEqual([REPLY, event]);
    expect(third.text().split('\r\n')).toHaveLength(2);
  });

  test('floods are cut to one a second for each source, the last one of them', async () => {
    const wakes: (() => void)[] = [];
    const clock: Clock = { ...systemClock, sleep: () => new Promise((resolve) => { wakes.push(resolve); }) };
    const { path, server } = await serve({}, { clock });
    const { send, messages } = client(path);
    send(CAPABILITIES);
    await messages(1);
    const fail = (node: string, sector: number): void => server.emit('QUORUM_REPORT_BAD', { 'type': 'read', 'node-name': node, 'sector-num': sector, 'sectors-count': 1 });
    for (let sector = 0; sector < 5; sector++) for (const node of ['a', 'b']) fail(node, sector);
    const told = async (count: number): Promise<unknown[]> => (await messages(count)).slice(1).map(({ data }) => Object.values(data as object).slice(0, 3));
    expect(await told(3)).toHaveLength(2);
    for (const wake of wakes.splice(0)) wake();
    expect((await messages(5)).slice(1).map(({ data }) => (data as Record<string, unknown>)['sector-num'])).toEqual([0, 0, 4, 4]);
    await sleep(10);
    for (const wake of wakes.splice(0)) wake();
    await sleep(10);
    // quiet for a second: the next one goes out at once
    fail('a', 9);
    expect(await messages(6)).toHaveLength(6);
    for (const wake of wakes.splice(0)) wake();
  });

  test('one that the schema does not know is a fault of the caller', () => {
    expect(() => new QmpServer({ commands: {}, version, clock: systemClock }).emit('NO_SUCH')).toThrow("the event 'NO_SUCH' is not in the schema");
  });
});

test('whatever bytes come in, the session answers afterwards', async () => {
  const { path } = await serve({ 'job-pause': () => undefined });
  const random = new Random(7);
  const seeds = [CAPABILITIES, '{"execute":"job-pause","arguments":{"id":"\\ud83d\\ude00x"}}', `{'a':[1,2.5e3,-0,{"b":null}],"id":[]}`, '[[[[', '{"execute":"query-qmp-schema"}'];
  for (let round = 0; round < 30; round++) {
    const { socket, send, text } = client(path);
    socket.write(`${CAPABILITIES}\n`);
    for (let part = 0; part < 40; part++) {
      const bytes = Buffer.from(random.pick(seeds));
      for (let mutations = random.below(5); mutations > 0; mutations--) bytes[random.below(bytes.length)] = random.pick([0, 0x22, 0x27, 0x5c, 0x7b, 0x7d, 0x5b, 0x5d, 0xff, 0xc3, random.below(256)]);
      socket.write(bytes.subarray(random.below(3), bytes.length - random.below(3)));
    }
    // a line end leaves a string, FF leaves all else
    socket.write(Buffer.from([0x0a, 0xff, 0x0a]));
    send(`{"execute":"query-version","id":"after ${round}"}`);
    for (let attempt = 0; attempt < 500 && !text().includes(`"after ${round}"`); attempt++) await sleep(10);
    expect(text()).toContain(`"id": "after ${round}"`);
    socket.destroy();
  }
});
