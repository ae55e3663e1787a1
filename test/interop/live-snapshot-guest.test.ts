/** Snapshots of a disk that a guest is writing through NBD: each holds all writes up to one, whole, and none after it. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk, snapshotNames } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, startLiveDisk, writesOn } from '../support/live-disk.js';
import { withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { quiesce, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const ROUNDS = 40;

peers('qemu-system-x86_64', 'qemu-img')('a guest that writes', () => {
  test('V-16: is snapshotted by QMP and by the command line, with a state and without, and never stops', async () => {
    const image = await makeImage(tmp('a.qcow2'), '16M');
    await installWriter(image);
    const disk = await startLiveDisk(tmp(), image);
    const log = tmp('log');
    const bounds = new Map<string, readonly [acknowledged: number, asked: number]>();
    const state = randomBytes(3_000_001, 7);
    writeFileSync(tmp('state'), state);
    const during = async <T>(tag: string, take: () => Promise<T>): Promise<T> => {
      await writesOn(log, 40);
      const before = acknowledged(log).at(-1)!;
      const result = await take();
      bounds.set(tag, [before, acknowledged(log).at(-1)! + 1]);
      return result;
    };
    const create = (tag: string, ...more: string[]): Promise<string> => during(tag, () => quiesceOk(['snapshot', 'create', '--daemon', disk.monitor, 'disk', tag, ...more]));
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, log), async () => {
      for (const name of ['q0', 'q1', 'q2']) await during(name, () => disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name }));
      expect(await create('plain')).toMatch(/^snapshot 'plain' of node 'disk' is durable \(id 4\); writes waited \d+(\.\d+)? ms\n$/);
      const told = JSON.parse(await create('stated', '--vm-state', tmp('state'), '--vm-clock', '18446744073709551615', '--json')) as Record<string, unknown>;
      expect(told).toMatchObject({ 'vm-state-size': state.byteLength, images: [{ node: 'disk', name: 'stated', id: '5' }] });
      expect(told['pause-ms']).toBeGreaterThan(0);
      expect(told['pause-ms']).toBeLessThan(2000);
      await create('q1', '--replace');
      await expectRefused(['snapshot', 'create', '--daemon', disk.monitor, 'disk', 'plain'], "already has a snapshot 'plain'");
      await during('piped', async () => {
        expect(await quiesce(['snapshot', 'create', '--daemon', disk.monitor, 'disk', 'piped', '--vm-state', '-'], { input: state })).toMatchObject({ code: 0, stderr: '' });
      });
      await writesOn(log, 40);
    });
    await disk.end();
    expect(acknowledged(log)).toEqual(acknowledged(log).map((_, index) => index + 1));
    await runOk('qemu-img', ['check', '-q', image]);
    expect(await snapshotNames(image)).toEqual(['q0', 'q2', 'plain', 'stated', 'q1', 'piped']);
    for (const [tag, [atLeast, atMost]] of bounds) {
      const last = await lastWrite(image, tag);
      expect([tag, last >= atLeast, last <= atMost]).toEqual([tag, true, true]);
    }
    expect(await lastWrite(image, null)).toBeGreaterThanOrEqual(acknowledged(log).at(-1)!);
    for (const tag of ['stated', 'piped']) {
      await quiesceOk(['snapshot', 'extract', image, tag, '--vm-state', tmp('out')]);
      await runOk('cmp', [tmp('out'), tmp('state')]);
    }
  });

  test('is snapshotted again and again, one right after the other, while older ones are deleted', async () => {
    const image = await makeImage(tmp('a.qcow2'), '16M');
    await installWriter(image);
    const disk = await startLiveDisk(tmp(), image);
    const log = tmp('log');
    const bounds: (readonly [acknowledged: number, asked: number])[] = [];
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, log), async () => {
      await writesOn(log, 20);
      for (let round = 0; round < ROUNDS; round++) {
        const before = acknowledged(log).at(-1)!;
        await disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name: `t${round}` });
        bounds.push([before, acknowledged(log).at(-1)! + 1]);
        if (round % 4 === 3) await disk.qmp.execute('blockdev-snapshot-delete-internal-sync', { device: 'disk', name: `t${round - 2}` });
        if (round % 8 === 7) await writesOn(log, 100);
      }
      await writesOn(log, 20);
    });
    await disk.end();
    await runOk('qemu-img', ['check', '-q', image]);
    const kept = Array.from(bounds.keys()).filter((round) => round % 4 !== 1).map((round) => `t${round}`);
    expect(await snapshotNames(image)).toEqual(kept);
    for (const tag of kept) {
      const [atLeast, atMost] = bounds[Number(tag.slice(1))]!;
      const last = await lastWrite(image, tag);
      expect([tag, last >= atLeast, last <= atMost]).toEqual([tag, true, true]);
    }
  });
});
