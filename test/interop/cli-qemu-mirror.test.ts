/** `quiesce mirror --qmp`: a real machine's disk moves to a target that takes less than its guest writes, steered from outside. */
import { existsSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { QmpClient } from '../../src/index.js';
import { expectRefused, lastLine, makeImage, monitorOf, quiesceOk, sleep, startQuiesce, waitFor } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, writesOn } from '../support/live-disk.js';
import { startMachine, type Machine } from '../support/machine.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
/** Less than the guest writes, however slow this machine is: round and round over four granules. */
const SLOW = 150_000;

interface Device {
  readonly inserted: Readonly<Record<string, unknown>>;
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('a machine', () => {
  let machine: Machine;
  let qmp: QmpClient;

  beforeEach(async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 1M 512k', image]);
    await installWriter(image);
    machine = await startMachine(tmp('qmp'), [...guestArgs({ image }, tmp('log')), '-qmp', `unix:${tmp('own')},server=on,wait=off`]);
    qmp = await monitorOf(tmp('own'));
    await writesOn(tmp('log'), 20);
  });

  afterEach(async () => {
    qmp.close();
    await machine.end();
  });

  /** Node `slow`, over moved.qcow2. */
  async function slowTarget(): Promise<void> {
    await makeImage(tmp('moved.qcow2'), '16M');
    await qmp.execute('object-add', { 'qom-type': 'throttle-group', id: 'slow', limits: { 'bps-write': SLOW } });
    const file = { driver: 'throttle', 'throttle-group': 'slow', file: { driver: 'file', filename: tmp('moved.qcow2') } };
    await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'slow', file });
  }

  async function device(): Promise<Device['inserted']> {
    return (await qmp.execute('query-block') as Device[])[0]!.inserted;
  }

  async function nodeNames(): Promise<string[]> {
    return (await qmp.execute('query-named-block-nodes', { flat: true }) as { 'node-name': string }[]).map((node) => node['node-name']);
  }

  /** The disk that the guest has now holds all that it was told is written. */
  async function endsWith(image: string): Promise<void> {
    await writesOn(tmp('log'), 20);
    await qmp.execute('quit').catch(() => undefined);
    await waitFor('QEMU ends', () => machine.child.exitCode !== null);
    expect(await lastWrite(tmp(image), null)).toBeGreaterThanOrEqual(acknowledged(tmp('log')).at(-1)!);
    await runOk('qemu-img', ['check', '-q', tmp(image)]);
    await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -q -P 9 1M 512k', tmp(image)]);
  }

  test('QEMU alone is not ready on a slow target; with us it is, and the guest goes on there as fast as before', async () => {
    await slowTarget();
    const alone = startQuiesce(['mirror', '--qmp', tmp('qmp'), 'disk0', 'slow', '--copy-mode', 'background', '--json']);
    await sleep(9000); // in six it has copied all there was
    expect(alone.child.exitCode).toBeNull();
    alone.child.kill('SIGINT');
    const { code, stdout } = await alone.done;
    expect([code, stdout]).toEqual([130, expect.not.stringContaining('BLOCK_JOB_READY')]);

    const told = await quiesceOk(['mirror', '--qmp', tmp('qmp'), 'disk0', 'slow', '--deadline', '10', '--pivot', '--json'], { timeoutMs: 60_000 });
    expect(lastLine(told)).toMatchObject({ source: 'disk0', target: 'slow', pivoted: true });
    const events = told.trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.filter(({ event }) => event === 'BLOCK_JOB_PHASE').map(({ phase }) => phase)).toContain('sync');
    expect(events.filter(({ event, guestRate, guestP99Ms }) => event === 'progress' && guestRate !== undefined && guestP99Ms !== undefined)).not.toEqual([]);
    expect(await device()).toMatchObject({ 'node-name': 'slow', bps_wr: 0, bps: 0 });
    await endsWith('moved.qcow2');
  }, 120_000);

  test('a file: made for QEMU, whole as of one moment, and nothing stays behind; with --pivot the guest lives on it', async () => {
    expect(await quiesceOk(['mirror', '--qmp', tmp('qmp'), 'd0', tmp('copy.qcow2')])).toMatch(/^'.*copy.qcow2' is what 'd0' was: .* copied in .* s\n$/);
    expect(await nodeNames()).not.toContainEqual(expect.stringMatching(/^target-/));
    expect(await lastWrite(tmp('copy.qcow2'), null)).toBeGreaterThan(0);
    expect(await device()).toMatchObject({ 'node-name': 'd0', bps_wr: 0 });
    await expectRefused(['mirror', '--qmp', tmp('qmp'), 'd0', tmp('copy.qcow2')], 'copy.qcow2\' is there already (--existing writes into it)');
    await quiesceOk(['mirror', '--qmp', tmp('qmp'), '/machine/peripheral/disk0/virtio-backend', tmp('copy.qcow2'), '--existing', '--pivot']);
    await endsWith('copy.qcow2');
  });

  test("the user's own limits hold meanwhile, and afterwards; Ctrl-C leaves nothing behind", async () => {
    const own = { bps: 0, bps_rd: 0, bps_wr: 3_000_000, iops: 0, iops_rd: 777, iops_wr: 0 };
    await qmp.execute('block_set_io_throttle', { id: '/machine/peripheral/disk0/virtio-backend', ...own, group: 'mine' });
    await slowTarget();
    const before = readdirSync(tmp()).toSorted();
    const running = startQuiesce(['mirror', '--qmp', tmp('qmp'), 'disk0', tmp('copy.raw'), '--speed', '600k', '--deadline', '1']);
    await waitFor('the guest is slowed down', async () => Number((await device())['bps_wr']) < 3_000_000, 30_000);
    expect(await device()).toMatchObject({ iops_rd: 777, group: expect.stringMatching(/^quiesce-/) });
    running.child.kill('SIGINT');
    expect(await running.done).toMatchObject({ code: 130, stdout: '' });
    expect(await device()).toMatchObject({ ...own, group: 'mine', 'node-name': 'd0' });
    expect(await qmp.execute('query-block-jobs')).toEqual([]);
    expect(await nodeNames()).not.toContainEqual(expect.stringMatching(/^target-/));
    expect(existsSync(tmp('copy.raw'))).toBe(false);
    expect(readdirSync(tmp()).toSorted()).toEqual(before);
  });

  test('what does not work is said, and changes nothing', async () => {
    await expectRefused(['mirror', '--qmp', tmp('qmp'), 'nobody', tmp('gone.raw')], `'nobody' is neither a node nor a device of '${tmp('qmp')}'`);
    await expectRefused(['mirror', '--qmp', tmp('qmp'), 'disk0', tmp('no/gone.raw')], 'no/gone.raw');
    await expectRefused(['mirror', '--qmp', tmp('none'), 'disk0', tmp('gone.raw')], `could not connect to QEMU at '${tmp('none')}'`);
    const running = startQuiesce(['mirror', '--qmp', tmp('qmp'), 'disk0', tmp('copy.raw'), '--speed', '100k', '--copy-mode', 'background']);
    await waitFor('it runs', async () => (await qmp.execute('query-block-jobs') as unknown[]).length === 1);
    machine.child.kill('SIGKILL');
    expect(await running.done).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^quiesce: .*QMP connection to '.*qmp' [^\n]*; how the mirror 'mirror-\d+' ends is not known, and '.*copy.raw' is left as it is\n$/) });
    expect(existsSync(tmp('gone.raw'))).toBe(false);
  });
});
