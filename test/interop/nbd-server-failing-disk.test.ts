/** A disk that fails under our export: qemu-io, nbdcopy and fio see the errors, and the server goes on serving. */
import { expect, test } from '@jest/globals';
import { ioError, useServed, type HeldDriver } from '../support/nbd-served.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const serve = useServed();
const MiB = 1024 * 1024;

type Operation = NonNullable<HeldDriver['failure']>['op'];

const FAILURES: readonly (readonly [Operation, string, string, string])[] = [
  ['read', 'EIO', 'read 64k 4k', 'read failed: Input/output error'],
  ['read', 'EIO', 'read 0 1M', 'read failed: Input/output error'],
  ['status', 'EIO', 'read 0 1M', 'read failed: Input/output error'],
  ['write', 'ENOSPC', 'write 0 64k', 'write failed: No space left on device'],
  ['write-zeroes', 'EPERM', 'write -z 0 64k', 'write failed: Operation not permitted'],
  ['flush', 'EIO', 'write -f 0 64k', 'write failed: Input/output error'],
  ['discard', 'ENOMEM', 'discard 0 64k', 'discard failed: Cannot allocate memory'],
];

peers('qemu-io')('qemu-io on a failing disk', () => {
  test.each(FAILURES)('that fails a %s with %s: %s', async (op, errno, command, says) => {
    const { disk, server } = await serve(tmp('s'), {}, 4 * MiB);
    const uri = `nbd+unix:///?socket=${tmp('s')}`;
    expect((await run('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 128k', uri])).code).toBe(0);
    disk.failure = { op, error: ioError(errno) };
    const failed = await run('qemu-io', ['-f', 'raw', '-c', command, uri]);
    expect(failed.stdout + failed.stderr).toContain(says);
    disk.failure = null;
    const again = await run('qemu-io', ['-f', 'raw', '-c', command, '-c', 'read -P 7 64k 64k', uri]);
    expect([again.code, /fail/i.test(again.stdout + again.stderr)]).toEqual([0, false]);
    expect(server.connections).toBeLessThanOrEqual(1);
  });
});

peers('fio', 'nbdcopy', 'nbdkit', 'qemu-io')('others', () => {
  test('stop with an error, and leave nothing behind', async () => {
    const { disk, server } = await serve(tmp('s'), {}, 4 * MiB);
    disk.failure = { op: 'write', error: ioError('EIO') };
    const uri = `nbd+unix:///?socket=${tmp('s')}`;
    const fio = await run('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k', '--size=1M', '--iodepth=32', '--minimal']);
    expect(fio.code).not.toBe(0);
    const copy = await run('nbdcopy', ['--', '[', 'nbdkit', '--exit-with-parent', 'pattern', 'size=4M', ']', uri]);
    expect(copy.code).not.toBe(0);
    disk.failure = null;
    expect(await run('nbdcopy', ['--', '[', 'nbdkit', '--exit-with-parent', 'pattern', 'size=4M', ']', uri])).toMatchObject({ code: 0 });
    expect(await run('qemu-io', ['-f', 'raw', '-c', 'read 0 4M', uri])).toMatchObject({ code: 0 });
    await server.close();
    expect(server.connections).toBe(0);
  });
});
