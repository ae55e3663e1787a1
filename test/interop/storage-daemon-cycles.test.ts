/** quiesce-storage-daemon after nodes, exports, NBD clients and monitors have come and gone: as large as before. CYCLES: how often each of them does. */
import { readdirSync, readFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { KiB, makeImage, MiB, waitFor } from '../support/cli.js';
import { RawNbd, request } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const CYCLES = Number(process.env['CYCLES'] ?? 10_000);
/** With a node of its own for every client. */
const WHOLE_CYCLES = Math.min(CYCLES, 800);
const WARM_UP = 300;
const MONITORS: readonly string[] = ['b', 'c', 'd', 'e'];
/** Cycles under way at once. */
const LANES = 8;
const [READ, WRITE, DISC] = [0, 1, 2] as const;
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

const rss = (child: ChildProcess): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) * KiB;
const openFiles = (child: ChildProcess): number => readdirSync(`/proc/${child.pid}/fd`).length;

async function startDaemon(): Promise<{ readonly child: ChildProcess; readonly qmp: QmpClient }> {
  const child = start(storageDaemonLauncher, [
    ...['a', ...MONITORS].flatMap((id) => ['--chardev', `socket,id=${id},path=${tmp(id)},server=on,wait=off`, '--monitor', id]),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')},max-connections=0`,
  ]);
  daemons.push(child);
  await appears(tmp('s'));
  let qmp: QmpClient | null = null;
  await waitFor('the monitor answers', async () => (qmp = await QmpClient.connect(tmp('a')).catch(() => null)) !== null);
  return { child, qmp: qmp! };
}

/** `cycle` with each number from `from` to `to`, in several lanes; a lane has one under way. */
async function inLanes(lanes: number, from: number, to: number, cycle: (turn: number, lane: number) => Promise<void>): Promise<void> {
  let next = from;
  await Promise.all(Array.from({ length: lanes }, async (_, lane) => {
    while (next < to) await cycle(next++, lane);
  }));
}

/** Runs all `times` cycles, and expects that after the first ones neither memory nor descriptors become more. */
async function expectFlat(child: ChildProcess, times: number, lanes: number, cycle: (turn: number, lane: number) => Promise<void>): Promise<void> {
  await inLanes(lanes, 0, WARM_UP, cycle);
  const [memory, files] = [rss(child), openFiles(child)];
  await inLanes(lanes, WARM_UP, times, cycle);
  await waitFor('all is closed', () => openFiles(child) <= files);
  expect(rss(child) - memory).toBeLessThan(40 * MiB);
}

async function use(name: string, turn: number): Promise<RawNbd> {
  const client = await RawNbd.transmitting(tmp('s'), { name });
  client.send(request({ type: WRITE, bytes: 4096, payload: Buffer.alloc(4096, turn) }), request({ type: READ, bytes: 16_384 }));
  // some say goodbye, some vanish, some are still there when the export goes
  if (turn % 3 > 0) {
    await client.replies();
    await client.replies();
  }
  if (turn % 3 === 1) client.send(request({ type: DISC }));
  return client;
}

peers('qemu-img')('cycles', () => {
  test(`${CYCLES} nodes, exports, clients and monitors come and go`, async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const { child, qmp } = await startDaemon();
    const file = { driver: 'file', filename: image };
    await expectFlat(child, WHOLE_CYCLES, 1, async (turn) => {
      const name = `node${turn}`;
      await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': name, file });
      await qmp.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': name, writable: true });
      const client = await use(name, turn);
      if (turn % 2 === 0) client.destroy();
      await qmp.execute('block-export-del', { id: 'e', mode: 'hard' });
      await waitFor('the export is gone', async () => (await qmp.execute('query-block-exports') as unknown[]).length === 0);
      client.destroy();
      await qmp.execute('blockdev-del', { 'node-name': name });
    });
    await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'disk', file });
    await qmp.execute('block-export-add', { type: 'nbd', id: 'kept', 'node-name': 'disk', writable: true });
    await expectFlat(child, CYCLES, LANES, async (turn) => (await use('disk', turn)).destroy());
    await expectFlat(child, CYCLES, LANES, async (_, lane) => {
      await qmp.execute('block-export-add', { type: 'nbd', id: `e${lane}`, name: `e${lane}`, 'node-name': 'disk' });
      await qmp.execute('block-export-del', { id: `e${lane}` });
    });
    await expectFlat(child, CYCLES, LANES, async (_, lane) => {
      await qmp.execute('blockdev-add', { driver: 'null-co', 'node-name': `n${lane}` });
      await qmp.execute('blockdev-del', { 'node-name': `n${lane}` });
    });
    const idle = MONITORS.map((name) => tmp(name));
    await expectFlat(child, CYCLES, MONITORS.length, async (turn) => {
      const monitor = idle.pop()!;
      const other = await QmpClient.connect(monitor);
      if (turn % 2 === 0) await other.execute('query-version');
      other.close();
      idle.push(monitor);
    });
    await qmp.execute('block-export-del', { id: 'kept', mode: 'hard' });
    await waitFor('the export is gone', async () => (await qmp.execute('query-block-exports') as unknown[]).length === 0);
    await qmp.execute('blockdev-del', { 'node-name': 'disk' });
    expect(await qmp.execute('query-named-block-nodes')).toEqual([]);
    qmp.close();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    await runOk('qemu-img', ['check', '-q', image]);
  }, 900_000);
});
