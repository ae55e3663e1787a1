/** Commands with --trace: what they do to images is in the trace, the tools read it, and the command does what it does without. */
import { existsSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeImage, MiB, oneLineError, quiesceOk, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, quiesce, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { judge, sums } from '../support/trace-judges.js';

const tmp = useTmp();
const FIRST = 4000 * 0x10_0000;

peers('blkparse', 'btt', 'blkrawverify', 'iowatcher', 'fio', 'qemu-img', 'qemu-io')('tools read', () => {
  test('a snapshot with RAM, taken and loaded', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '64M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 0 1M', image]);
    const ram = randomBytes(8 * MiB, 1);
    writeFileSync(tmp('ram'), ram);
    await quiesceOk(['snapshot', 'create', image, 's', '--vm-state', tmp('ram'), '--trace', tmp('c')]);
    const created = await judge(tmp('c'));
    const causes = (table: typeof created.table, device: number): string[] => [...new Set([...table.device].flatMap((of, row) => of === device ? [table.causes[table.cause[row]!]!] : []))];
    expect(causes(created.table, FIRST + 1)).toContain('vmstate');
    expect(causes(created.table, FIRST + 2)).toEqual(expect.arrayContaining(['l2-alloc', 'refcount', 'header']));
    expect(sums(created.table, FIRST + 1, 'write').io_bytes).toBe(8 * MiB);
    await quiesceOk(['snapshot', 'load', image, 's', '--vm-state', tmp('back'), '--trace', tmp('l')]);
    const loaded = await judge(tmp('l'));
    expect(sums(loaded.table, FIRST + 1, 'read').io_bytes).toBe(8 * MiB);
  });

  test('a copy: every byte that one image gave and the other took', async () => {
    const source = await makeImage(tmp('a.qcow2'), '64M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 1M 3M', '-c', 'write -P 2 20M 1M', source]);
    await quiesceOk(['nbd', 'copy', source, tmp('b.qcow2'), '--trace', tmp('t')]);
    const { counts, table } = await judge(tmp('t'));
    const disks = [...table.deviceNames].filter(([, name]) => name.startsWith('guest disk')).map(([device, name]) => [name.split(' ').at(-1)!, device] as const);
    const bytes = Object.fromEntries(disks.map(([name, device]) => [name, [...table.device].reduce((sum, of, row) => of === device ? sum + table.bytes[row]! : sum, 0)]));
    expect(bytes['a.qcow2']).toBe(4 * MiB);
    expect(bytes['b.qcow2']).toBeGreaterThanOrEqual(4 * MiB);
    expect(Object.values(counts).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(50);
    await runOk('qemu-img', ['compare', source, tmp('b.qcow2')]);
  });

  test('what a killed server had recorded', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const server = startQuiesce(['nbd', 'serve', image, '--socket', tmp('s'), '--persistent', '--trace', tmp('t')]);
    await waitFor('it serves', () => server.stdout() !== '' || server.child.exitCode !== null);
    for (let round = 0; round < 8; round++) await runOk('qemu-io', ['-f', 'raw', '-c', 'write 0 1M', '-c', 'read 0 2M', `nbd+unix:///?socket=${tmp('s')}`]);
    await waitFor('what was recorded is in the files', () => existsSync(tmp('t.blktrace.2')));
    await new Promise((resolve) => { setTimeout(resolve, 700); });
    await kill(server.child, 'SIGKILL');
    const { counts } = await judge(tmp('t'));
    expect(counts['4000,0 QW']).toBe(8);
  });
});

test('a trace that cannot be made is refused before anything is done', async () => {
  const line = oneLineError(await quiesce(['image', 'create', tmp('x.qcow2'), '1M', '--trace', tmp('no/such/t')]));
  expect(line).toMatch(/^Could not make the trace '.*t\.blktrace\.0': /);
  expect(existsSync(tmp('x.qcow2'))).toBe(false);
});

test('a daemon records for itself', async () => {
  const line = oneLineError(await quiesce(['backup', 'disk', 'copy', '--daemon', tmp('nobody'), '--trace', tmp('t')]), 2);
  expect(line).toContain('x-quiesce-trace-start');
});
