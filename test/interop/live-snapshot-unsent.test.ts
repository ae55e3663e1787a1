/** A snapshot that is to take a state that nobody sends: refused at once, as every other command waits meanwhile. */
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, QmpClient } from '../../src/index.js';
import { startLiveDisk } from '../support/live-disk.js';
import { randomBytes } from '../support/random-bytes.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function receive(client: QmpClient): Promise<string> {
  return (await client.execute('x-quiesce-vm-state-receive', { 'node-name': 'disk', name: 't' }) as { path: string }).path;
}

const take = (client: QmpClient): Promise<unknown> => client.execute('x-quiesce-snapshot-create', { 'node-name': 'disk', name: 't', 'take-vm-state': true });

test('a state that was announced and not sent holds nobody up', async () => {
  await createImage(tmp('a.qcow2'), { format: 'qcow2', size: 1024 * 1024 });
  const disk = await startLiveDisk(tmp(), tmp('a.qcow2'));
  const client = await QmpClient.connect(disk.monitor);
  await receive(client);
  const started = performance.now();
  await expect(Promise.all([take(client), disk.qmp.execute('query-version')])).rejects.toThrow(/no VM state came: nobody has connected to '.*vm-state'/);
  // 30 s is what the end of a stream is waited for
  expect(performance.now() - started).toBeLessThan(25_000);
  client.close();

  // who has connected, if only just, is waited for
  const other = await QmpClient.connect(disk.monitor);
  const sender: Socket = connect({ path: await receive(other) });
  await once(sender, 'connect');
  const taking = take(other);
  sender.resume().end(randomBytes(100_000, 1));
  expect(await taking).toMatchObject({ snapshot: { name: 't' } });
  other.close();
  await disk.end();
  expect(readdirSync(tmp())).not.toContainEqual(expect.stringMatching(/^quiesce-/));
});
