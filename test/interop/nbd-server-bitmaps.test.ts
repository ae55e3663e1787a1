/** Dirty bitmaps of our nodes, as clients of QEMU and libnbd see them. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockBackend, BlockNode, DirtyBitmap, MemoryDriver, NbdServer } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
let server: NbdServer;
let fine: DirtyBitmap;
let coarse: DirtyBitmap;

beforeEach(async () => {
  const node = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes: 16 * MiB, growable: false }) });
  fine = new DirtyBitmap({ name: 'fine', granularity: 4 * KiB, size: 16 * MiB });
  coarse = new DirtyBitmap({ name: 'coarse ü', granularity: 64 * KiB, size: 16 * MiB });
  for (const bitmap of [fine, coarse]) {
    bitmap.set(MiB, 4 * KiB);
    bitmap.set(3 * MiB, 200 * KiB);
    bitmap.set(16 * MiB - 1, 1);
  }
  server = new NbdServer();
  server.addExport({ name: '', description: null, backend: new BlockBackend('', node), readOnly: false, multiConn: true, bitmaps: [fine, coarse], allocationDepth: true });
  await server.listen({ unix: tmp('s') });
});

afterEach(() => server.close());

const FINE = [[0, MiB, 0], [MiB, 4 * KiB, 1], [MiB + 4 * KiB, 2 * MiB - 4 * KiB, 0], [3 * MiB, 200 * KiB, 1], [3 * MiB + 200 * KiB, 13 * MiB - 204 * KiB, 0], [16 * MiB - 4 * KiB, 4 * KiB, 1]];

peers('nbdinfo')('nbdinfo', () => {
  test('maps each, and lists them', async () => {
    const uri = `nbd+unix:///?socket=${tmp('s')}`;
    const map = JSON.parse(await runOk('nbdinfo', ['--json', '--map=qemu:dirty-bitmap:fine', uri])) as { offset: number; length: number; type: number }[];
    expect(map.map(({ offset, length, type }) => [offset, length, type])).toEqual(FINE);
    const other = JSON.parse(await runOk('nbdinfo', ['--json', '--map=qemu:dirty-bitmap:coarse ü', uri])) as { length: number; type: number }[];
    expect(other.filter(({ type }) => type === 1).map(({ length }) => length)).toEqual([64 * KiB, 256 * KiB, 64 * KiB]);
    const { exports } = JSON.parse(await runOk('nbdinfo', ['--json', uri])) as { exports: { contexts: string[] }[] };
    expect(exports[0]!.contexts).toEqual(['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:fine', 'qemu:dirty-bitmap:coarse ü']);
  });
});

peers('qemu-img')('qemu-img', () => {
  test('sees dirty ranges as not to be read, through x-dirty-bitmap', async () => {
    const image = `driver=nbd,server.type=unix,server.path=${tmp('s')},x-dirty-bitmap=qemu:dirty-bitmap:fine`;
    const map = JSON.parse(await runOk('qemu-img', ['map', '--output=json', '--image-opts', image])) as { start: number; length: number; data: boolean }[];
    // QEMU takes the dirty bit for "hole": what is dirty has no data
    expect(map.map(({ start, length, data }) => [start, length, data ? 0 : 1])).toEqual(FINE);
  });
});
