import { request as httpRequest } from 'node:http';
import { afterEach, describe, expect, test } from '@jest/globals';
import { BlockError } from '../../../src/base/errors.js';
import type { LoadedTrace } from '../../../src/viewer/load.js';
import { TraceModel } from '../../../src/viewer/model.js';
import { TraceServer, type TraceServerOptions } from '../../../src/viewer/web-server.js';
import { decode } from '../../../src/viewer/wire.js';
import { makeTable } from '../../support/io-table.js';

const PAGE = '<style>a{}</style><p>the page</p><script>1</script>';
const servers: TraceServer[] = [];
const trace = (): LoadedTrace => ({ model: new TraceModel(makeTable(40)), name: 'made', records: 160, remarks: [], findings: [] });

async function serve(load: TraceServerOptions['load'] = () => Promise.resolve(trace())): Promise<TraceServer> {
  const server = await TraceServer.start({ page: PAGE, host: '127.0.0.1', port: 0, load });
  servers.push(server);
  return server;
}

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

/** With a Host header of its own, which `fetch` forbids. */
function statusWithHost(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    httpRequest(url, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).on('error', reject).end();
  });
}

describe('the page', () => {
  test('is given to whoever knows the token, and may load nothing else', async () => {
    const response = await fetch((await serve()).url);
    expect([response.status, await response.text()]).toEqual([200, PAGE]);
    const policy = response.headers.get('content-security-policy')!;
    expect(policy).toMatch(/^default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'; img-src data:; .*; connect-src 'self'; frame-ancestors 'none'$/);
    expect([response.headers.get('cache-control'), response.headers.get('referrer-policy')]).toEqual(['no-store', 'no-referrer']);
  });

  test.each([
    ['no token', (url: URL) => `${url.origin}/`], ['a wrong one', (url: URL) => `${url.origin}/${'A'.repeat(32)}/`], ['one letter too few', (url: URL) => url.href.replace(/.\/$/, '/')],
    ['a wrong one, asking', (url: URL) => `${url.origin}/x/status`], ['more than the token', (url: URL) => `${url.href}status/x`],
  ])('is refused with %s', async (_, address) => {
    const response = await fetch(address(new URL((await serve()).url)));
    expect(response.status).toBe(403);
  });

  test('is refused to who calls this server by another name', async () => {
    const { url } = await serve();
    expect(await statusWithHost(url, 'evil.example')).toBe(421);
    expect(await statusWithHost(url, `localhost:${new URL(url).port}`)).toBe(200);
  });

  test('two servers have two tokens of 192 bits', async () => {
    const tokens = await Promise.all([serve(), serve()]).then((both) => both.map(({ url }) => new URL(url).pathname.slice(1, -1)));
    expect(tokens[0]).toMatch(/^[\w-]{32}$/);
    expect(tokens[0]).not.toBe(tokens[1]);
  });
});

describe('answers', () => {
  const ask = (url: string, body: string): Promise<Response> => fetch(`${url}ask`, { method: 'POST', body });

  test('are those of the trace', async () => {
    const server = await serve();
    await server.loaded();
    const response = await ask(server.url, JSON.stringify({ ask: 'overview' }));
    expect(decode(await response.arrayBuffer())).toMatchObject({ name: 'made', requests: 40, records: 160 });
  });

  test('to what is no question say so', async () => {
    const server = await serve();
    await server.loaded();
    for (const body of ['{', '{}', '7', 'x'.repeat(300_000)]) expect((await ask(server.url, body)).status).toBe(400);
    expect((await fetch(`${server.url}ask`)).status).toBe(404);
  });

  test('wait until the trace is read, and progress is told', async () => {
    let finish: (loaded: LoadedTrace) => void = () => undefined;
    const server = await serve((progress) => {
      progress({ done: 3, total: 9, unit: 'bytes' });
      return new Promise((resolve) => { finish = resolve; });
    });
    expect(await (await fetch(`${server.url}status`)).json()).toEqual({ phase: 'reading', done: 3, total: 9, unit: 'bytes' });
    expect((await ask(server.url, '{"ask":"overview"}')).status).toBe(503);
    finish(trace());
    await server.loaded();
    expect(await (await fetch(`${server.url}status`)).json()).toMatchObject({ phase: 'ready' });
  });

  test('of a trace that cannot be read: the page is told why', async () => {
    const server = await serve(() => Promise.reject(new BlockError('NOT_FOUND', 'there is no trace')));
    await expect(server.loaded()).rejects.toThrow('there is no trace');
    expect(await (await fetch(`${server.url}status`)).json()).toMatchObject({ phase: 'failed', problem: 'there is no trace' });
  });
});

test('a trace that goes on tells its version, until it ends', async () => {
  let renew: (loaded: LoadedTrace) => void = () => undefined;
  let finish: (loaded: LoadedTrace) => void = () => undefined;
  const server = await serve((_, again) => {
    renew = again;
    return new Promise((resolve) => { finish = resolve; });
  });
  const state = async (): Promise<unknown> => (await fetch(`${server.url}status`)).json();
  renew(trace());
  expect(await state()).toMatchObject({ phase: 'ready', version: 1 });
  expect((await fetch(`${server.url}ask`, { method: 'POST', body: '{"ask":"overview"}' })).status).toBe(200);
  renew(trace());
  expect(await state()).toMatchObject({ phase: 'ready', version: 2 });
  finish(trace());
  await server.loaded();
  expect(await state()).toEqual({ phase: 'ready', done: 0, total: null, unit: 'records' });
});
