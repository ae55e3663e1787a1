/** A client that is gone at any moment of its snapshot: there is a snapshot with its whole state, or none and no leak. */
import { connect } from 'node:net';
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, extractSnapshot, listSnapshots, QmpClient } from '../../src/index.js';
import { sleep, waitFor } from '../support/cli.js';
import { startLiveDisk } from '../support/live-disk.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const ROUNDS = 12;

function send(path: string, state: Uint8Array): Promise<void> {
  return new Promise((resolve) => { connect({ path }).on('close', () => resolve()).on('error', () => undefined).resume().end(state); });
}

peers('qemu-img')('a client that vanishes', () => {
  test('leaves all of a snapshot or nothing', async () => {
    const image = tmp('a.qcow2');
    await createImage(image, { format: 'qcow2', size: 1024 * 1024 });
    const disk = await startLiveDisk(tmp(), image);
    const state = randomBytes(500_000, 3);
    for (let round = 0; round < ROUNDS; round++) {
      const client = await QmpClient.connect(disk.monitor);
      const { path } = await client.execute('x-quiesce-vm-state-receive', { 'node-name': 'disk', name: `t${round}` }) as { path: string };
      await send(path, state);
      const ending = client.execute('x-quiesce-snapshot-create', { 'node-name': 'disk', name: `t${round}`, 'take-vm-state': true, 'vm-state-size': state.byteLength });
      ending.catch(() => undefined);
      // the last is given all the time it needs
      await (round < ROUNDS - 1 ? sleep(round * 2) : ending);
      client.close();
      await waitFor('the daemon takes another', () => disk.qmp.execute('x-quiesce-snapshot-create', { 'node-name': 'disk', name: 'probe', replace: true }).then(() => true, () => false));
    }
    await disk.end();
    await runOk('qemu-img', ['check', '-q', image]);
    expect(readdirSync(tmp())).not.toContainEqual(expect.stringMatching(/^quiesce-/));
    const made = (await listSnapshots(image)).filter(({ name }) => name !== 'probe');
    expect(made.map(({ name }) => name)).toContain(`t${ROUNDS - 1}`);
    for (const { name } of made) {
      await extractSnapshot({ image, tag: name, vmState: tmp('out') });
      expect([name, state.equals(readFileSync(tmp('out')))]).toEqual([name, true]);
    }
  });
});
