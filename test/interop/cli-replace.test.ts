/** `snapshot create --replace`: the older snapshot goes only after the new one is durable, wherever the run is killed. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { Random } from '../../src/index.js';
import { leaksAtMost, makeImage, MiB, quiesceOk, sleep, snapshotNames, startQuiesce } from '../support/cli.js';
import { hashOf } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KILLS = 15;
const replace = (image: string, ram: string): string[] => ['snapshot', 'create', image, 't', '--replace', '--vm-state', ram];

async function stateOf(image: string): Promise<string> {
  await quiesceOk(['snapshot', 'extract', image, 't', '--vm-state', tmp('back')]);
  return hashOf(readFileSync(tmp('back')));
}

peers('qemu-img')('snapshot create --replace', () => {
  test('puts the new snapshot in the place of the older one, and makes it where there was none', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    for (const seed of [1, 2, 3]) {
      writeFileSync(tmp('ram'), randomBytes(MiB + seed, seed));
      await quiesceOk(replace(image, tmp('ram')));
      expect(await snapshotNames(image)).toEqual(['t']);
      expect(await stateOf(image)).toBe(hashOf(readFileSync(tmp('ram'))));
      await runOk('qemu-img', ['check', '-q', image]);
    }
  });

  test(`killed at ${KILLS} moments, it leaves the older or the new one loadable`, async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    const states = [randomBytes(4 * MiB, 1), randomBytes(4 * MiB, 2)];
    const hashes = states.map(hashOf);
    states.forEach((state, index) => writeFileSync(tmp(`ram${index}`), state));
    await quiesceOk(replace(image, tmp('ram0')));
    const started = performance.now();
    await quiesceOk(replace(image, tmp('ram0')));
    const wholeMs = performance.now() - started;
    const random = new Random(7);
    for (let round = 0; round < KILLS; round++) {
      const { child, done } = startQuiesce(replace(image, tmp(`ram${round % 2}`)));
      await sleep(wholeMs * (0.3 + 0.0007 * random.below(1000)));
      await kill(child);
      const { code } = await done;
      await leaksAtMost(image);
      const left = await stateOf(image);
      expect(hashes).toContain(left);
      if (code === 0) expect(left).toBe(hashes[round % 2]);
    }
    await quiesceOk(replace(image, tmp('ram1')));
    expect(await snapshotNames(image)).toEqual(['t']);
    expect(await stateOf(image)).toBe(hashes[1]);
    await runOk('qemu-img', ['check', '-q', image]);
  });
});
