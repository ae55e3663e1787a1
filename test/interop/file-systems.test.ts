/** Images on real file systems, whose cached writes go at once where they can (RWF_NOWAIT): what was written is there, and a full disk is told. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockError, BufferPool, createImage, openImage, Random } from '../../src/index.js';
import { host, useHost } from '../support/host.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const devices = useHost();
const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 24 * MiB;

/** Without a turn of the event loop. */
async function endsAtOnce(work: Promise<void>): Promise<boolean> {
  let ended = false;
  void work.then(() => { ended = true; });
  for (let step = 0; step < 8; step++) await Promise.resolve();
  return ended;
}

for (const [type, size] of [['ext4', '64M'], ['xfs', '400M'], ['btrfs', '200M'], ['tmpfs', '64M']] as const) {
  host(['loop', 'mount'], ...type === 'tmpfs' ? [] : [`mkfs.${type}`])(type, () => {
    async function mounted(): Promise<string> {
      if (type === 'tmpfs') return devices.mount(tmp('mounted'), '-t', type, '-o', `size=${size}`, 'quiesce-test');
      await runOk('truncate', ['-s', size, tmp('fs')]);
      await runOk(`mkfs.${type}`, ['-q', tmp('fs')]);
      return devices.mount(tmp('mounted'), '-o', 'loop', tmp('fs'));
    }

    test.each([false, true])('random writes, many at once, new and over old ones; O_DIRECT: %s', async (direct) => {
      const image = `${await mounted()}/disk.raw`;
      await createImage(image, { format: 'raw', size: SIZE });
      const model = Buffer.alloc(SIZE);
      const node = await openImage(image, { format: 'raw', cache: direct ? 'none' : 'writeback' });
      const random = new Random(5);
      // memory of this kind has an address, which calls that do not wait need; some ranges are larger than such calls take
      const lease = await new BufferPool(SIZE).lease(SIZE);
      const memory = lease.buffer;
      let atOnce = 0;
      for (let turn = 0; turn < 12; turn++) {
        await Promise.all(Array.from({ length: 24 }, async (_, slot) => {
          const bytes = 512 * (1 + random.below(160));
          const offset = slot * MiB + 512 * random.below((MiB - bytes) / 512);
          random.fill(model.subarray(offset, offset + bytes));
          memory.set(model.subarray(offset, offset + bytes), offset);
          const writing = node.write(offset, memory.subarray(offset, offset + bytes));
          if (await endsAtOnce(writing)) atOnce++;
          await writing;
          if (slot % 8 === turn % 8) await node.read(offset, memory.subarray(offset, offset + bytes));
          expect(Buffer.compare(memory.subarray(offset, offset + bytes), model.subarray(offset, offset + bytes))).toBe(0);
        }));
        if (turn % 6 === 5) await node.flush();
      }
      // what they are for: of the rest of the file systems only later kernels know how
      if (!direct && (type === 'xfs' || type === 'tmpfs')) expect(atOnce).toBeGreaterThan(0);
      if (direct && type !== 'tmpfs') expect(atOnce).toBe(0);
      await node.read(0, memory.fill(0));
      expect(Buffer.compare(memory, model)).toBe(0);
      await node.close();
      expect(Buffer.compare(readFileSync(image), model)).toBe(0);
    });

    test('a file system that is full says so, and holds what it said it took', async () => {
      const folder = await mounted();
      const image = `${folder}/disk.raw`;
      await createImage(image, { format: 'raw', size: 1024 * MiB });
      const node = await openImage(image, { format: 'raw' });
      const block = (await new BufferPool(64 * KiB).lease(64 * KiB)).buffer;
      let written = 0;
      const failed = await (async () => {
        for (;; written++) await node.write(written * block.byteLength, block.fill(1 + written % 255));
      })().catch((error: unknown) => error);
      expect(failed).toBeInstanceOf(BlockError);
      expect(failed).toMatchObject({ code: 'NO_SPACE' });
      expect(written).toBeGreaterThan(100);
      const back = new Uint8Array(block.byteLength);
      for (let index = 0; index < written; index++) {
        await node.read(index * back.byteLength, back);
        expect([index, back[0], back.at(-1)]).toEqual([index, 1 + index % 255, 1 + index % 255]);
      }
      await node.close();
    });
  });
}
