/** A running QEMU with its own image: stop, migrate, the moment its lock goes, continue; and every way that fails. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import {
  BlockError, checkSettled, machineStatus, migrateInto, QmpClient, snapshotImages, SocketInput, Spool, VmStateWriter, whileStopped, type VmStateArea,
} from '../../src/index.js';
import { startMachine, type Machine } from '../support/machine.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const FULL: VmStateArea = {
  clusterSize: 4096,
  save: () => Promise.reject(new BlockError('NO_SPACE', 'the spool is full')),
  load: () => Promise.resolve(0),
  discard: () => Promise.resolve(),
};

async function withMachine(args: readonly string[], use: (qmp: QmpClient, machine: Machine) => Promise<void>): Promise<void> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), '64M']);
  const machine = await startMachine(tmp('qmp'), args, tmp());
  try {
    const qmp = await QmpClient.connect(machine.qmpPath);
    try {
      await use(qmp, machine);
    } finally {
      qmp.close();
    }
  } finally {
    await machine.end();
  }
}

const drive = (name = 'disk.qcow2', options = 'format=qcow2,if=virtio'): string[] => ['-drive', `file=${tmp(name)},${options}`];

/** Byte 101 of an image is locked while QEMU may write it (its own writes: 101; others' kept out: 201). */
function writeLocked(name = 'disk.qcow2'): boolean {
  const { ino } = statSync(tmp(name));
  return readFileSync('/proc/locks', 'utf8').split('\n').some((line) => line.includes(`:${ino} `) && /\s(?:100 101|201 201)$/.test(line.trim()));
}

async function save(qmp: QmpClient, area: VmStateArea, signal?: AbortSignal): Promise<number> {
  const input = await SocketInput.listen(tmp('migrate'), signal);
  const writer = new VmStateWriter(area);
  try {
    const bytes = await migrateInto(qmp, input, writer);
    expect(await writer.finish()).toBe(bytes);
    return bytes;
  } finally {
    await input.close();
    await writer.abort();
  }
}

async function objects(qmp: QmpClient): Promise<string[]> {
  const list = await qmp.execute('qom-list', { path: '/objects' }) as { name: string }[];
  return list.map(({ name }) => name).filter((name) => name.startsWith('quiesce'));
}

async function expectRunning(qmp: QmpClient): Promise<void> {
  expect(await machineStatus(qmp)).toEqual({ state: 'running', running: true });
  expect([writeLocked(), await objects(qmp)]).toEqual([true, []]);
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('a running QEMU', () => {
  test('its write lock is gone at completed, another program may write, and cont reads the image anew', async () => {
    await withMachine(drive(), async (qmp) => {
      await expectRunning(qmp);
      await using spool = await Spool.beside(tmp('disk.qcow2'));
      const bytes = await whileStopped(qmp, async () => {
        expect([writeLocked(), (await objects(qmp)).length]).toEqual([true, 1]);
        const total = await save(qmp, spool);
        expect(writeLocked()).toBe(false);
        expect((await machineStatus(qmp)).state).toBe('postmigrate');
        await runOk('qemu-img', ['snapshot', '-c', 'made-outside', tmp('disk.qcow2')]);
        return total;
      });
      expect(bytes).toBeGreaterThan(100_000);
      await expectRunning(qmp);
      expect(JSON.stringify(await qmp.execute('query-block'))).toContain('made-outside');
      expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', tmp('disk.qcow2')])).code).not.toBe(0);
      await whileStopped(qmp, () => save(qmp, spool));
      await expectRunning(qmp);
    });
  });

  test('its settings for migrations are put back', async () => {
    await withMachine(drive(), async (qmp) => {
      await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 12_345_678 });
      const settings = async (): Promise<unknown[]> => [await qmp.execute('query-migrate-capabilities'), await qmp.execute('query-migrate-parameters')];
      const before = await settings();
      await using spool = await Spool.beside(tmp('disk.qcow2'));
      await whileStopped(qmp, () => save(qmp, spool));
      expect(await settings()).toEqual(before);
      await expect(whileStopped(qmp, () => save(qmp, FULL))).rejects.toMatchObject({ code: 'NO_SPACE' });
      expect(await settings()).toEqual(before);
    });
  });

  test('it runs on where storing fails, where it is cancelled, and where something else fails', async () => {
    await withMachine(drive(), async (qmp) => {
      await expect(whileStopped(qmp, () => save(qmp, FULL))).rejects.toThrow('the spool is full');
      await expectRunning(qmp);
      const controller = new AbortController();
      const slow: VmStateArea = { ...FULL, save: () => new Promise((resolve) => setTimeout(resolve, 50)) };
      setTimeout(() => controller.abort(), 100);
      const cancelled = whileStopped(qmp, async () => {
        await save(qmp, slow, controller.signal);
        await new Promise((resolve) => setTimeout(resolve, 200));
        if (controller.signal.aborted) throw new BlockError('CANCELLED', 'too late');
      });
      await expect(cancelled).rejects.toMatchObject({ code: 'CANCELLED' });
      await expectRunning(qmp);
      await expect(whileStopped(qmp, () => Promise.reject(new Error('elsewhere')))).rejects.toThrow('elsewhere');
      await expectRunning(qmp);
    });
  });

  test('a machine that cannot be migrated says why, and runs on', async () => {
    writeFileSync(tmp('n.raw'), '');
    truncateSync(tmp('n.raw'), 1024 * 1024);
    await withMachine([...drive(), ...drive('n.raw', 'format=raw,if=none,id=n'), '-device', 'nvme,drive=n,serial=1'], async (qmp) => {
      const refused = whileStopped(qmp, () => save(qmp, FULL));
      await expect(refused).rejects.toThrow(/QEMU refused 'migrate': .*nvme/);
      await expectRunning(qmp);
      await expect(snapshotImages(qmp)).rejects.toThrow(`expected qcow2 files: 'n' (raw, ${tmp('n.raw')})`);
    });
  });

  test('one that was stopped before is not let run, and must run before the next time', async () => {
    await withMachine(['-S', ...drive()], async (qmp) => {
      await using spool = await Spool.beside(tmp('disk.qcow2'));
      await whileStopped(qmp, () => save(qmp, spool));
      expect(await machineStatus(qmp)).toEqual({ state: 'postmigrate', running: false });
      await expect(checkSettled(qmp)).rejects.toMatchObject({ code: 'BUSY' });
    });
  });

  test('one that a killed run left stopped is named by the next', async () => {
    await withMachine(drive(), async (qmp, machine) => {
      await expect(whileStopped(qmp, async () => { qmp.close(); })).rejects.toMatchObject({ code: 'CLOSED' });
      const next = await QmpClient.connect(machine.qmpPath);
      await expect(whileStopped(next, () => Promise.resolve())).rejects.toThrow("was left stopped ('paused') by a run that was killed");
      await next.execute('cont');
      await whileStopped(next, () => Promise.resolve());
      await expectRunning(next);
      next.close();
    });
  });

  test('where somebody else holds the image at the end, the error says that the guest is left stopped', async () => {
    await withMachine(drive(), async (qmp) => {
      await using spool = await Spool.beside(tmp('disk.qcow2'));
      const holder = { end: (): Promise<void> => Promise.resolve() };
      const failing = whileStopped(qmp, async () => {
        await save(qmp, spool);
        const child = start('qemu-io', ['-f', 'qcow2', tmp('disk.qcow2')]);
        holder.end = () => kill(child);
        child.stdin!.write('length\n');
        await new Promise((resolve) => child.stdout!.once('data', resolve));
        throw new Error('stop here');
      });
      await expect(failing).rejects.toThrow(/^stop here; and the machine at .* is left stopped: QEMU refused 'cont': .*lock/);
      await holder.end();
      await qmp.execute('cont');
      expect(writeLocked()).toBe(true);
    });
  });

  test('its disks are told by absolute names, also where QEMU was given relative ones', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('b.qcow2'), '1M']);
    await withMachine(['-drive', 'file=disk.qcow2,format=qcow2', ...drive('b.qcow2', 'format=qcow2,if=virtio,readonly=on'), '-drive', 'if=ide,media=cdrom,index=2'], async (qmp) => {
      expect(await snapshotImages(qmp)).toEqual([tmp('disk.qcow2')]);
    });
    await withMachine([], async (qmp) => {
      await expect(snapshotImages(qmp)).rejects.toThrow('no writable disk');
    });
  });
});
