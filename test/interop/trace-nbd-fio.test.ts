/** An NBD server under fio, recorded: what fio counts is what stands in the trace, and every tool reads it. */
import { existsSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeImage, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { fioJson, judge, sums } from '../support/trace-judges.js';

const tmp = useTmp();
const DISK = 4000 * 0x10_0000;

peers('blkparse', 'btt', 'blkrawverify', 'iowatcher', 'fio', 'qemu-img')('tools read it', () => {
  test.each(['none', 'writeback'])('cache %s', async (cache) => {
    const image = await makeImage(tmp('disk.qcow2'), '64M');
    const server = startQuiesce(['nbd', 'serve', image, '--socket', tmp('s'), '--persistent', '--cache', cache, '--trace', tmp('t')]);
    await waitFor('it serves', () => server.stdout() !== '' || server.child.exitCode !== null);
    const fio = await run('fio', ['--name=j', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${tmp('s')}`, '--rw=randrw', '--bssplit=512/20:4k/60:20k/20', '--bs_unaligned=0', '--iodepth=16',
      '--size=64m', '--number_ios=1500', '--fsync=100', '--randseed=3', '--output-format=json']);
    expect(fio.code).toBe(0);
    await kill(server.child, 'SIGTERM');
    expect((await server.done).stderr).toBe('');
    const { counts, table } = await judge(tmp('t'));
    const [job] = fioJson(fio.stdout).jobs;
    expect(sums(table, DISK, 'read')).toMatchObject({ total_ios: job!.read.total_ios, io_bytes: job!.read.io_bytes });
    expect(sums(table, DISK, 'write')).toMatchObject({ total_ios: job!.write.total_ios, io_bytes: job!.write.io_bytes });
    expect(counts['4000,0 QF']).toBeGreaterThanOrEqual(job!.sync.total_ios);
    expect([...table.deviceNames].filter(([device]) => device === DISK || device === DISK + 3).map(([, name]) => name).toSorted()).toEqual(['guest disk disk.qcow2', 'host file disk.qcow2']);
    expect([...table.processes.values()]).toEqual(expect.arrayContaining([expect.stringMatching(/^nbd unix/)]));
    // each data request of the disk's file was made for one of the disk
    const data = [...table.device].flatMap((device, row) => device === DISK + 1 && table.bytes[row]! > 0 ? [table.parent[row]!] : []);
    expect(data.length).toBeGreaterThan(500);
    expect(data.filter((parent) => parent === -1 || table.device[parent] !== DISK)).toEqual([]);
    expect(existsSync(tmp('t.blktrace.3'))).toBe(true);
  });
});
