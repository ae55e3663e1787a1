/** The same limits in qemu-storage-daemon and in ours, each served over NBD to the same load: the same rates. */
import { afterEach, expect, jest, test } from '@jest/globals';
import { BlockBackend, BlockGraph, NbdServer, openBlockdev, ThrottleGroup, type ThrottleLimits } from '../../src/index.js';
import { isThere } from '../support/listening.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 1024 * 1024;
const SECONDS = 2;

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

async function startTheirs(limits: Partial<ThrottleLimits>): Promise<string> {
  const socket = tmp('theirs');
  const object = { 'qom-type': 'throttle-group', id: 'group', limits };
  const child = start('qemu-storage-daemon', [
    '--object', JSON.stringify(object), '--blockdev', 'null-co,node-name=disk,size=67108864', '--blockdev', 'throttle,node-name=slow,throttle-group=group,file=disk',
    '--nbd-server', `addr.type=unix,addr.path=${socket}`, '--export', 'type=nbd,id=e,node-name=slow,name=,writable=on',
  ]);
  ends.push(() => kill(child));
  for (let wait = 0; !isThere(socket); wait++) {
    if (child.exitCode !== null || wait > 1000) throw new Error('qemu-storage-daemon did not start');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return socket;
}

async function startOurs(limits: Partial<ThrottleLimits>): Promise<string> {
  const socket = tmp('ours');
  const group = new ThrottleGroup('group', limits);
  const node = await openBlockdev(new BlockGraph(), {
    'node-name': 'slow', driver: 'throttle', 'throttle-group': 'group', file: { driver: 'null-co', size: 64 * MiB },
  }, { throttleGroup: () => group });
  const server = new NbdServer();
  server.addExport({ name: '', description: null, backend: new BlockBackend('export', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
  await server.listen({ unix: socket });
  ends.push(() => node.close(), () => server.close());
  return socket;
}

/** Operations in a run of SECONDS. */
async function load(socket: string, workload: string, blockBytes: number): Promise<number> {
  const output = await runOk('fio', ['--name=load', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, `--rw=${workload}`, `--bs=${blockBytes}`, '--iodepth=8',
    '--time_based', `--runtime=${SECONDS}`, '--output-format=json'], { cwd: tmp() });
  const { jobs: [job] } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: [Readonly<Record<'read' | 'write', { readonly total_ios: number }>>] };
  return job.read.total_ios + job.write.total_ios;
}

// a busy machine does less than it may in the time
jest.retryTimes(4);

peers('qemu-storage-daemon', 'fio')('throttling against qemu-storage-daemon', () => {
  test.each<[string, Partial<ThrottleLimits>, string, number, number]>([
    ['operations of both directions', { 'iops-total': 400 }, 'randrw', 4096, 400 * (SECONDS + 0.1)],
    ['large operations that count several times', { 'iops-read': 400, 'iops-size': 8192 }, 'randread', 16384, 200 * (SECONDS + 0.1)],
    ['bytes written', { 'bps-write': 16 * MiB }, 'write', 65536, 256 * (SECONDS + 0.1)],
    ['a burst first', { 'iops-total': 100, 'iops-total-max': 300 }, 'randread', 4096, 300 + 100 * SECONDS],
  ])('%s', async (_title, limits, workload, blockBytes, expected) => {
    const [theirs, ours] = await Promise.all([await startTheirs(limits), await startOurs(limits)].map((socket) => load(socket, workload, blockBytes)));
    expect(theirs! / expected).toBeGreaterThan(0.9);
    expect(theirs! / expected).toBeLessThan(1.1);
    expect(ours! / theirs!).toBeGreaterThan(0.9);
    expect(ours! / theirs!).toBeLessThan(1.1);
  });
});
