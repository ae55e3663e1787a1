/** One snapshot over several live disks of a daemon: of the same moment, on all of them or on none. */
import { readdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { NbdClient, openImage } from '../../src/index.js';
import { expectRefused, leaksAtMost, makeImage, quiesceOk, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { whileRunning } from '../support/programs.js';
import { randomBytes } from '../support/random-bytes.js';
import { quiesce, runOk, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const DISKS = ['a', 'b', 'c'] as const;

/** A daemon with three disks; options of what lies below `b` besides its name. */
async function withDisks(section: () => Promise<void>, below = 'file.driver=file,file.filename=FILE'): Promise<void> {
  for (const name of DISKS) await makeImage(tmp(`${name}.qcow2`), '16M');
  const file = (name: string): string => (name === 'b' ? below : 'file.driver=file,file.filename=FILE').replace('FILE', tmp(`${name}.qcow2`));
  await whileRunning(storageDaemonLauncher, [
    '--chardev', `socket,id=m,path=${tmp('monitor')},server=on,wait=off`, '--monitor', 'chardev=m',
    '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`,
    ...DISKS.flatMap((name) => ['--blockdev', `driver=qcow2,node-name=${name},${file(name)}`, '--export', `type=nbd,id=e${name},node-name=${name},name=${name},writable=on`]),
    '--pidfile', tmp('pid'),
  ], tmp('pid'), section);
  for (const name of DISKS) await leaksAtMost(tmp(`${name}.qcow2`));
}

const args = (tag: string, ...more: string[]): string[] => ['snapshot', 'create', '--daemon', tmp('monitor'), 'a', tag, ...more];

/** Counts on all disks, one after the other, until told to stop: no disk is ever ahead of one before it, or behind by more than one. */
async function counting(section: (counted: () => number) => Promise<void>): Promise<void> {
  const clients = await Promise.all(DISKS.map((exportName) => NbdClient.open({ address: { type: 'unix', path: tmp('nbd') }, exportName })));
  let stop = false;
  let count = 0;
  const run = async (): Promise<void> => {
    for (; !stop; count++) for (const client of clients) await client.write(4096, Buffer.alloc(512, (count + 1) % 251));
  };
  const running = run();
  try {
    await section(() => count);
  } finally {
    stop = true;
    await running;
    for (const client of clients) await client.close();
  }
}

async function counts(snapshot: string): Promise<number[]> {
  return Promise.all(DISKS.map(async (name) => {
    await using image = await openImage(tmp(`${name}.qcow2`), { readOnly: true, snapshot });
    const found = Buffer.alloc(1);
    await image.read(4096, found);
    return found[0]!;
  }));
}

peers('qemu-img')('several live disks', () => {
  test('have the same moment in a snapshot, with a RAM state and without', async () => {
    const state = randomBytes(3_000_001, 3);
    writeFileSync(tmp('state'), state);
    const tags = ['plain', 'stated', 'sent'];
    await withDisks(() => counting(async (counted) => {
      const goesOn = async (): Promise<void> => {
        const before = counted();
        await waitFor('writes go on', () => counted() > before + 20);
      };
      await goesOn();
      expect(await quiesceOk(args('plain', '--also', 'b', 'c'))).toMatch(
        /^snapshot 'plain' of node 'a' is durable \(id 1\); writes waited \S+ ms\nsnapshot 'plain' of node 'b' is durable \(id 1\)\nsnapshot 'plain' of node 'c' is durable \(id 1\)\n$/);
      await goesOn();
      const told = JSON.parse(await quiesceOk(args('stated', '--json', '--vm-state', tmp('state'), '--also', 'b', 'c'))) as { images: unknown };
      expect(told.images).toMatchObject([{ node: 'a', 'vm-state-size': state.byteLength }, { node: 'b', 'vm-state-size': 0 }, { node: 'c', 'vm-state-size': 0 }]);
      await goesOn();
      const command = startQuiesce(args('sent', '--vm-state', `unix:${tmp('ram')}`, '--also', 'b', 'c'));
      await appears(tmp('ram'));
      connect({ path: tmp('ram') }).end(state);
      expect(await command.done).toMatchObject({ code: 0 });
      await quiesceOk(args('plain', '--replace', '--also', 'b', 'c'));
      await goesOn();
    }));
    for (const name of DISKS) expect((await snapshotNames(tmp(`${name}.qcow2`))).toSorted()).toEqual(tags.toSorted());
    for (const tag of tags) {
      const [a, b, c] = await counts(tag) as [number, number, number];
      expect({ tag, a, steps: [(a - b + 251) % 251, (b - c + 251) % 251, (a - c + 251) % 251] }).toEqual({ tag, a, steps: expect.arrayContaining([0]) });
      expect((a - c + 251) % 251).toBeLessThanOrEqual(1);
    }
    for (const tag of ['stated', 'sent']) {
      await quiesceOk(['snapshot', 'extract', tmp('a.qcow2'), tag, '--vm-state', tmp('out')]);
      await runOk('cmp', [tmp('out'), tmp('state')]);
    }
  });

  test('V-12: have none of it where one refuses', async () => {
    await withDisks(async () => {
      await quiesceOk(['snapshot', 'create', '--daemon', tmp('monitor'), 'b', 'taken']);
      await expectRefused(args('taken', '--also', 'b'), "Node 'b' already has a snapshot 'taken'");
      await expectRefused(args('taken', '--vm-state', '-', '--also', 'b'), "Node 'b' already has a snapshot 'taken'");
      await expectRefused(args('t', '--also', 'a'), "Node 'a' is named twice");
      await expectRefused(args('t', '--also', 'b', 'none'), "node-name='none'");
      await expectRefused(args('t', '--cache', 'none', '--also', 'b'), '--cache', 2);
    });
    expect(await Promise.all(DISKS.map((name) => snapshotNames(tmp(`${name}.qcow2`))))).toEqual([[], ['taken'], []]);
  });

  test('V-12: have none of it where one fails, and the others go on', async () => {
    const failing = 'file.driver=blkdebug,file.image.driver=file,file.image.filename=FILE,file.inject-error.0.event=cluster_alloc,file.inject-error.0.once=on,file.inject-error.0.iotype=write';
    await withDisks(async () => {
      expect(await quiesce(args('t', '--also', 'b', 'c'))).toMatchObject({ code: 1, stderr: expect.stringContaining('Input/output error') });
      await quiesceOk(args('t', '--also', 'c'));
    }, failing);
    expect(await Promise.all(DISKS.map((name) => snapshotNames(tmp(`${name}.qcow2`))))).toEqual([['t'], [], ['t']]);
    expect(readdirSync(tmp()).filter((name) => name.endsWith('.quiesce-set'))).toEqual([]);
  });
});
