/** quiesce-storage-daemon after nodes, exports, NBD clients and monitors have come and gone: as large as before. CYCLES=10000 for the whole run. */
import { readdirSync, readFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { KiB, makeImage, MiB, waitFor } from '../support/cli.js';
import { RawNbd, request } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/programs.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const CYCLES = Number(process.env['CYCLES'] ?? 1000);
const WARM_UP = 400;
const [READ, WRITE, DISC] = [0, 1, 2] as const;
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

const rss = (child: ChildProcess): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) * KiB;
const openFiles = (child: ChildProcess): number => readdirSync(`/proc/${child.pid}/fd`).length;

async function startDaemon(): Promise<{ readonly child: ChildProcess; readonly qmp: QmpClient }> {
  const child = start(storageDaemonLauncher, [
    ...['a', 'b'].flatMap((id) => ['--chardev', `socket,id=${id},path=${tmp(id)},server=on,wait=off`, '--monitor', id]),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')},max-connections=0`,
  ]);
  daemons.push(child);
  await appears(tmp('s'));
  let qmp: QmpClient | null = null;
  await waitFor('the monitor answers', async () => (qmp = await QmpClient.connect(tmp('a')).catch(() => null)) !== null);
  return { child, qmp: qmp! };
}

peers('qemu-img')('cycles', () => {
  test(`${CYCLES} times a disk is attached, exported, used, and taken away`, async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const { child, qmp } = await startDaemon();
    const file = { driver: 'file', filename: image };
    const cycle = async (turn: number): Promise<void> => {
      const name = `node${turn}`;
      await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': name, file });
      await qmp.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': name, writable: true });
      const client = await RawNbd.transmitting(tmp('s'), { name });
      client.send(request({ type: WRITE, bytes: 4096, payload: Buffer.alloc(4096, turn) }), request({ type: READ, bytes: 65_536 }));
      // some say goodbye, some vanish, some are still there when the export goes
      if (turn % 3 > 0) {
        await client.replies();
        await client.replies();
      }
      if (turn % 3 === 1) client.send(request({ type: DISC }));
      if (turn % 2 === 0) client.destroy();
      await qmp.execute('block-export-del', { id: 'e', mode: 'hard' });
      await waitFor('the export is gone', async () => (await qmp.execute('query-block-exports') as unknown[]).length === 0);
      client.destroy();
      await qmp.execute('blockdev-del', { 'node-name': name });
      const other = await QmpClient.connect(tmp('b'));
      if (turn % 2 === 0) await other.execute('query-version');
      other.close();
    };
    let turn = 0;
    while (turn < WARM_UP) await cycle(turn++);
    const [memory, files] = [rss(child), openFiles(child)];
    while (turn < CYCLES) await cycle(turn++);
    await waitFor('all is closed', () => openFiles(child) <= files);
    expect(rss(child) - memory).toBeLessThan(40 * MiB);
    expect(await qmp.execute('query-named-block-nodes')).toEqual([]);
    qmp.close();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    await runOk('qemu-img', ['check', '-q', image]);
  }, 900_000);
});
