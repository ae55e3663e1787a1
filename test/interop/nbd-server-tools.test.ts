/** What people use with NBD, on our exports: nbdinfo, nbdcopy, qemu-img, qemu-io and fio. */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockBackend, createImage, NbdServer, openImage, Random, type BlockNode } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 16 * MiB;

let server: NbdServer;
let nodes: BlockNode[] = [];
let port: number;

async function add(name: string, format: 'raw' | 'qcow2', options: { readonly readOnly?: boolean; readonly description?: string } = {}): Promise<void> {
  const image = tmp(`${name}.${format}`);
  const node = await openImage(image, { format, readOnly: options.readOnly ?? false, discard: 'unmap' });
  nodes.push(node);
  server.addExport({
    name, description: options.description ?? null, backend: new BlockBackend('export', node), readOnly: options.readOnly ?? false,
    multiConn: true, bitmaps: [], allocationDepth: true,
  });
}

beforeEach(async () => {
  server = new NbdServer();
  nodes = [];
  await createImage(tmp('q.qcow2'), { format: 'qcow2', size: SIZE });
  await createImage(tmp('r.raw'), { format: 'raw', size: SIZE });
  writeFileSync(tmp('ro.raw'), Buffer.alloc(MiB, 0x5c));
  await add('q', 'qcow2', { description: 'a qcow2' });
  await add('r', 'raw');
  await add('ro', 'raw', { readOnly: true });
  await server.listen({ unix: tmp('s') });
  port = (await server.listen({ host: '127.0.0.1', port: 0 }))!;
});

afterEach(async () => {
  await server.close();
  for (const node of nodes) await node.close();
});

const uri = (name: string): string => `nbd+unix:///${name}?socket=${tmp('s')}`;
const tcp = (name: string): string => `nbd://127.0.0.1:${port}/${name}`;

/** Data, zeros and random bytes, in pieces of odd sizes. */
function makeContent(): Buffer {
  const random = new Random(5);
  const content = Buffer.alloc(SIZE);
  for (let n = 0; n < 12; n++) {
    const start = random.below(SIZE - 300 * KiB);
    random.fill(content.subarray(start, start + random.below(300 * KiB)));
  }
  return content;
}

peers('nbdinfo', 'qemu-io')('nbdinfo', () => {
  test('lists exports, sizes, descriptions and contexts', async () => {
    const { exports } = JSON.parse(await runOk('nbdinfo', ['--json', '--list', tcp('')])) as { exports: Record<string, unknown>[] };
    const facts = exports.map((one) => [one['export-name'], one['export-size'], one['description'], one['is_read_only'], one['contexts']]);
    const contexts = ['base:allocation', 'qemu:allocation-depth'];
    expect(facts).toEqual([['q', SIZE, 'a qcow2', false, contexts], ['r', SIZE, undefined, false, contexts], ['ro', MiB, undefined, true, contexts]]);
  });

  test.each(['q', 'r'])('maps %s', async (name) => {
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 1 1M 128k', '-c', 'write -z 4M 1M', '-c', 'write -P 2 8M 64k', uri(name)]);
    const map = JSON.parse(await runOk('nbdinfo', ['--json', '--map', uri(name)])) as { offset: number; length: number; type: number }[];
    expect(map.map(({ offset, length, type }) => [offset, length, type])).toEqual([
      [0, MiB, 3], [MiB, 128 * KiB, 0], [MiB + 128 * KiB, 7 * MiB - 128 * KiB, 3], [8 * MiB, 64 * KiB, 0], [8 * MiB + 64 * KiB, 8 * MiB - 64 * KiB, 3],
    ]);
  });
});

peers('nbdcopy', 'qemu-img')('copies', () => {
  test.each([['q', uri], ['r', tcp]] as const)('in and out of %s by nbdcopy, over several connections', async (name, at) => {
    const content = makeContent();
    writeFileSync(tmp('in'), content);
    await runOk('nbdcopy', ['--connections=4', '--requests=16', '--flush', tmp('in'), at(name)]);
    await runOk('nbdcopy', ['--connections=3', at(name), tmp('out')]);
    expect(readFileSync(tmp('out')).equals(content)).toBe(true);
    expect(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', tmp('in'), at(name)])).toMatchObject({ code: 0 });
    await server.close();
    for (const node of nodes.splice(0)) await node.close();
    if (name === 'q') expect(await run('qemu-img', ['check', '-q', tmp('q.qcow2')])).toMatchObject({ code: 0 });
  });

  test('in and out by qemu-img convert, whose map says what is data', async () => {
    const content = makeContent();
    writeFileSync(tmp('in'), content);
    await runOk('qemu-img', ['convert', '-n', '-W', '-m', '16', '-f', 'raw', '-O', 'raw', tmp('in'), uri('q')]);
    await runOk('qemu-img', ['convert', '-W', '-m', '16', '-f', 'raw', '-O', 'qcow2', uri('q'), tmp('out.qcow2')]);
    expect(await run('qemu-img', ['compare', tmp('in'), tmp('out.qcow2')])).toMatchObject({ code: 0 });
    const dataIn = async (target: string): Promise<number> => {
      const map = JSON.parse(await runOk('qemu-img', ['map', '--output=json', '-f', 'raw', target])) as { length: number; data: boolean }[];
      return map.reduce((sum, { length, data }) => sum + (data ? length : 0), 0);
    };
    expect(await dataIn(uri('q'))).toBeLessThanOrEqual(await dataIn(tmp('in')) + 24 * 64 * KiB);
    expect(await dataIn(uri('q'))).toBeGreaterThan(0);
  });
});

peers('qemu-io')('qemu-io', () => {
  test.each(['q', 'r'])('reads what it wrote to %s, at any alignment', async (name) => {
    const commands = ['write -P 1 0 1M', 'write -P 2 511 3', 'write -f -P 3 1000000 100001', 'write -z -u 300000 200000', 'discard 600k 100k', 'flush',
      'read -P 2 511 3', 'read -P 1 514 299486', 'read -P 0 300000 200000', 'read -P 3 1000000 100001', 'aio_write -P 9 2M 3M', 'aio_write -P 9 8M 1M', 'aio_flush', 'aio_read -P 9 4M 64k', 'aio_flush', 'read -P 9 2M 3M'];
    const { stdout, stderr, code } = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri(name)]);
    expect([code, stderr, stdout.match(/.*(?:failed|error).*/i)]).toEqual([0, '', null]);
  });

  test('cannot write where it may only read', async () => {
    expect((await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', uri('ro')])).stderr + (await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0x5c 0 1M', uri('ro')])).stdout)
      .toMatch(/(read-only|Permission denied)[^]*read 1048576\/1048576/i);
  });
});

peers('fio')('fio', () => {
  test.each([['q', 1], ['r', 1], ['q', 4]] as const)('verifies what it wrote to %s through %i connections', async (name, jobs) => {
    const result = await run('fio', ['--name=v', '--ioengine=nbd', `--uri=${uri(name)}`, '--rw=randwrite', '--bsrange=512-64k', '--bs_unaligned=0', `--size=${SIZE / jobs}`, `--offset_increment=${SIZE / jobs}`,
      `--numjobs=${jobs}`, '--thread', '--iodepth=32', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randseed=7', '--minimal'], { timeoutMs: 50_000 });
    expect([result.code, result.stderr]).toEqual([0, '']);
  });
});
