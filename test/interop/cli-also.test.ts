/** A snapshot over several images is all or none, also where the run is killed at any moment. */
import { readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { watch } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { Random } from '../../src/index.js';
import { expectRefused, leaksAtMost, makeImage, MiB, quiesceOk, sleep, snapshotNames, startQuiesce } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { appears } from '../support/listening.js';
import { kill, nbdLauncher, quiesce, run, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KILLS = 36;

async function twoImages(): Promise<[string, string]> {
  return [await makeImage(tmp('a.qcow2')), await makeImage(tmp('b.qcow2'), '16M')];
}

function notes(): string[] {
  return readdirSync(tmp()).filter((name) => name.startsWith('.'));
}

/** The first image's note: from then on the set is half made, until it is gone. */
async function noteAppears(): Promise<void> {
  for await (const { filename } of watch(tmp())) if (filename === '.a.qcow2.quiesce-set') return;
}

peers('qemu-img', 'qemu-io', 'qemu-nbd')('snapshot create --also', () => {
  test('V-12: makes the snapshot in all images, or in none where one of them refuses', async () => {
    const [a, b] = await twoImages();
    writeFileSync(tmp('ram'), randomBytes(MiB, 1));
    writeFileSync(tmp('raw'), 'raw');
    await quiesceOk(['snapshot', 'create', a, 'one', '--vm-state', tmp('ram'), '--also', b]);
    expect([await snapshotNames(a), await snapshotNames(b)]).toEqual([['one'], ['one']]);
    await runOk('qemu-img', ['snapshot', '-c', 'only-b', b]);
    const create = (tag: string, ...also: string[]): string[] => ['snapshot', 'create', a, tag, '--vm-state', tmp('ram'), '--also', b, ...also];
    await expectRefused(create('only-b'), `'${b}' already has a snapshot 'only-b'`);
    await expectRefused(create('two', tmp('raw')), `'${tmp('raw')}' has format raw`);
    await expectRefused(create('two', tmp('missing')), `Could not open '${tmp('missing')}': No such file or directory`);
    await expectRefused(create('two', a), `'${a}' is named twice`);
    writeFileSync(tmp('ram'), 'QEVM and then no more');
    await expectRefused(create('two'), 'it was cut off');
    expect([await snapshotNames(a), await snapshotNames(b)]).toEqual([['one'], ['one', 'only-b']]);
    expect(notes()).toEqual([]);
    for (const image of [a, b]) await leaksAtMost(image);
  });

  test('load, revert and delete change all images or none', async () => {
    const [a, b] = await twoImages();
    await quiesceOk(['snapshot', 'create', a, 't', '--also', b]);
    await quiesceOk(['snapshot', 'create', a, 'only-a', '--vm-state', '-'], { input: 'state' });
    for (const verb of ['revert', 'delete']) await expectRefused(['snapshot', verb, a, 'only-a', '--also', b], `'${b}' has no snapshot 'only-a': it has 't'`);
    await expectRefused(['snapshot', 'load', a, 'only-a', '--vm-state', tmp('out'), '--also', b], `'${b}' has no snapshot 'only-a'`);
    expect([await snapshotNames(a), await snapshotNames(b)]).toEqual([['t', 'only-a'], ['t']]);
    await quiesceOk(['snapshot', 'create', a, 'ram', '--vm-state', '-', '--also', b], { input: 'state' });
    for (const image of [a, b]) await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x22 0 1M', image]);
    expect(await quiesceOk(['snapshot', 'load', a, 'ram', '--vm-state', '-', '--also', b])).toBe('state');
    for (const image of [a, b]) expect(await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -P 0 0 1M', image])).not.toContain('failed');
    await quiesceOk(['snapshot', 'delete', a, 'ram', '--also', b]);
    await quiesceOk(['snapshot', 'revert', a, 't', '--also', b]);
    await quiesceOk(['snapshot', 'delete', a, 't', '--also', b]);
    expect([await snapshotNames(a), await snapshotNames(b)]).toEqual([['only-a'], []]);
  });

  test('an image behind an NBD export has no place for notes: it goes on, and says what a kill would leave', async () => {
    const [a, b] = await twoImages();
    truncateSync(b, 16 * MiB); // an export does not grow
    const server = start('qemu-nbd', ['-f', 'raw', '-t', '-k', tmp('socket'), b]);
    try {
      await appears(tmp('socket'));
      const uri = `nbd+unix:///?socket=${tmp('socket')}`;
      for (const verb of ['create', 'revert']) {
        const { code, stderr } = await quiesce(['snapshot', verb, a, 't', '--also', uri]);
        expect([code, stderr]).toEqual([0, `quiesce: warning: '${uri}': no file here, so if this run is killed, some images may be changed and others not, and nothing makes up for it\n`]);
      }
      expect(notes()).toEqual([]);
    } finally {
      await kill(server);
    }
    expect([await snapshotNames(a), await snapshotNames(b)]).toEqual([['t'], ['t']]);
  }, 60_000);

  test('an image of an interrupted load is not changed while the others are not there', async () => {
    const [a] = await twoImages();
    const note = tmp('.a.qcow2.quiesce-set');
    writeFileSync(note, JSON.stringify({ set: 's', tag: 'undo', dateSeconds: 1, dateNanoseconds: 2, images: [tmp('away'), a], loads: 't' }));
    const refused = `loading snapshot 't' on several images was interrupted, and '${tmp('away')}' of them cannot be found: bring it back, or remove '${note}' to use '${a}'`;
    await expectRefused(['snapshot', 'create', a, 'new'], refused);
    await expectRefused(['nbd', 'serve', a, '--socket', tmp('socket')], refused);
    const { code, stderr } = await run(nbdLauncher, ['-f', 'qcow2', '-k', tmp('socket'), a]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(`Failed to blk_new_open '${a}': ${refused}`)]);
    await quiesceOk(['snapshot', 'list', a]);
    await quiesceOk(['image', 'info', a]);
    expect(notes()).toEqual(['.a.qcow2.quiesce-set']);
    expect(await snapshotNames(a)).toEqual([]);
  }, 60_000);

  test(`killed at ${KILLS} moments, it leaves leaks at most, and the next run names and removes a half-made set`, async () => {
    const [a, b] = await twoImages();
    writeFileSync(tmp('ram'), randomBytes(6 * MiB, 2));
    const create = (tag: string): string[] => ['snapshot', 'create', a, tag, '--vm-state', tmp('ram'), '--also', b];
    const started = performance.now();
    await quiesceOk(create('whole'));
    const wholeMs = performance.now() - started;
    const random = new Random(20_260_101);
    const seen = { none: 0, half: 0, all: 0 };
    for (let round = 0; round < KILLS; round++) {
      const tag = `t${round}`;
      const { child, done } = startQuiesce(create(tag));
      // every second one in the short time when some images have the snapshot and others do not
      const moment = round % 2 === 0 ? sleep(wholeMs * (0.3 + 0.0007 * random.below(1000))) : noteAppears().then(() => sleep(round % 4 === 1 ? 0 : random.below(30)));
      await Promise.race([moment, done]);
      await kill(child);
      const { signal } = await done;
      await Promise.all([leaksAtMost(a), leaksAtMost(b)]);
      seen[await judge(tag, [a, b], signal === null)]++;
    }
    expect(seen.none + seen.half + seen.all).toBe(KILLS);
    expect(Math.min(seen.none, seen.half)).toBeGreaterThan(0);
  }, 180_000);
});

type Outcome = 'none' | 'half' | 'all';

/** What a killed run left, and what the next run makes of it. */
async function judge(tag: string, images: readonly [string, string], ended: boolean): Promise<Outcome> {
  const before = await Promise.all(images.map(async (image) => (await snapshotNames(image)).includes(tag)));
  const undecided = notes().includes('.a.qcow2.quiesce-set');
  // the command fails, but only after it has looked for what was left behind
  const { stderr } = await quiesce(['snapshot', 'delete', images[0], 'no-such', '--also', images[1]]);
  const after = await Promise.all(images.map(async (image) => (await snapshotNames(image)).includes(tag)));
  expect(after[0]).toBe(after[1]);
  expect(after[0]).toBe(before[0] && before[1] && !undecided);
  if (ended) expect(after[0]).toBe(true);
  if (undecided) expect(stderr).toContain(`quiesce: warning: snapshot '${tag}' of an interrupted run was half made: `);
  else expect(stderr).not.toContain('half made');
  expect(notes().filter((name) => !name.endsWith('.new'))).toEqual([]);
  await Promise.all(images.map((image) => runOk('qemu-img', ['check', '-q', image])));
  if (after[0] === true) await quiesceOk(['snapshot', 'delete', images[0], tag, '--also', images[1]]);
  if (undecided) return 'half';
  return after[0] === true ? 'all' : 'none';
}
