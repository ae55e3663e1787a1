/** Many clients at once, and many one after the other: nothing grows. NBD_CYCLES=10000 for the whole run. */
import { readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { RawNbd, request } from '../../support/nbd-raw.js';
import { exportOf, until, useServed } from '../../support/nbd-served.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const serve = useServed();
const [READ, WRITE, DISC] = [0, 1, 2] as const;
const CYCLES = Number(process.env['NBD_CYCLES'] ?? 1500);
const MiB = 1024 * 1024;

function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}

test('200 connections write and read, each its own', async () => {
  const { server } = await serve(tmp('s'), { pool: new BufferPool(32 * MiB) }, 200 * 65_536);
  const clients = await Promise.all(Array.from({ length: 200 }, () => RawNbd.transmitting(tmp('s'))));
  expect(server.connections).toBe(200);
  await Promise.all(clients.map(async (client, index) => {
    const payload = Buffer.alloc(65_536, index + 1);
    for (let turn = 0; turn < 3; turn++) {
      client.send(request({ type: WRITE, offset: index * 65_536, bytes: 65_536, payload }), request({ type: READ, offset: ((index + 7) % 200) * 65_536, bytes: 65_536 }));
      await client.reply();
      await client.replies();
    }
    client.send(request({ type: READ, offset: index * 65_536, bytes: 65_536 }));
    expect((await client.replies())[0]!.payload.subarray(8).equals(payload)).toBe(true);
    client.send(request({ type: DISC }));
    await client.rest();
    client.destroy();
  }));
  await until(() => server.connections === 0);
});

test('I-7: exports that are added and removed, and clients that come and go, leave nothing behind', async () => {
  const pool = new BufferPool(32 * MiB);
  const { server, disk } = await serve(tmp('s'), { pool });
  const cycle = async (turn: number): Promise<void> => {
    const name = `export ${turn}`;
    server.addExport(exportOf(disk, { name }));
    const client = await RawNbd.transmitting(tmp('s'), { name });
    client.send(request({ type: READ, bytes: 65_536 }));
    if (turn % 3 > 0) await client.replies();
    if (turn % 3 === 1) client.send(request({ type: DISC }));
    if (turn % 2 === 0) client.destroy();
    await server.removeExport(name, 'hard');
    client.destroy();
    disk.log = [];
  };
  let turn = 0;
  while (turn < 500) await cycle(turn++);
  const [rss, files] = [process.memoryUsage().rss, openFiles()];
  while (turn < CYCLES) await cycle(turn++);
  await until(() => server.connections === 0);
  expect(pool.bytesFree).toBe(32 * MiB);
  expect([...server.exports()].length).toBe(1);
  expect(openFiles()).toBeLessThan(files + 10);
  expect(process.memoryUsage().rss - rss).toBeLessThan(40 * MiB);
}, 300_000);
