/** A recording of more disks than its memory has large buffers for: nothing is lost, and blktrace's tools read it. */
import { expect, test } from '@jest/globals';
import { BlockNode, MemoryDriver, TraceRecorder } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { judge } from '../support/trace-judges.js';

const tmp = useTmp();

peers('blkparse', 'btt', 'blkrawverify', 'fio')('a trace', () => {
  test('of 150 disks', async () => {
    const recorder = new TraceRecorder(tmp('t'));
    const disks = Array.from({ length: 150 }, (_, place) => new BlockNode({ name: `disk${place}`, driver: new MemoryDriver({ bytes: 65_536, growable: false }), trace: recorder }));
    for (let round = 0; round < 20; round++) {
      for (const disk of disks) await disk.write(512 * round, new Uint8Array(512));
      await new Promise((resolve) => { setTimeout(resolve, 5); });
    }
    const { dropped, events, files } = await recorder.stop();
    expect(dropped).toBe(0);
    // iowatcher takes 64 devices at most
    const { counts, table } = await judge(tmp('t'), { picture: false });
    expect(Object.values(counts).reduce((sum, count) => sum + count, 0)).toBe(events);
    expect(files).toHaveLength(disks.length);
    const perDevice = new Map<number, number>();
    for (const device of table.device) perDevice.set(device, (perDevice.get(device) ?? 0) + 1);
    expect([...perDevice.values()]).toEqual(disks.map(() => 20));
    expect(new Set(table.deviceNames.values()).size).toBe(disks.length);
  }, 60_000);
});
