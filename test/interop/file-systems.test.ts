/** Images on real file systems, whose cached writes go at once where they can (RWF_NOWAIT): what was written is there, and a full disk is told. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockError, createImage, openImage, Random } from '../../src/index.js';
import { host, useHost } from '../support/host.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const devices = useHost();
const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 24 * MiB;

for (const [type, size] of [['ext4', '64M'], ['xfs', '400M'], ['btrfs', '200M']] as const) {
  host(['loop', 'mount'], `mkfs.${type}`)(type, () => {
    async function mounted(): Promise<string> {
      await runOk('truncate', ['-s', size, tmp('fs')]);
      await runOk(`mkfs.${type}`, ['-q', tmp('fs')]);
      return devices.mount(tmp('mounted'), '-o', 'loop', tmp('fs'));
    }

    test('random writes, many at once, new and over old ones', async () => {
      const image = `${await mounted()}/disk.raw`;
      await createImage(image, { format: 'raw', size: SIZE });
      const model = Buffer.alloc(SIZE);
      const node = await openImage(image, { format: 'raw' });
      const random = new Random(5);
      for (let turn = 0; turn < 12; turn++) {
        await Promise.all(Array.from({ length: 24 }, async (_, slot) => {
          const bytes = 512 * (1 + random.below(128));
          const offset = slot * MiB + 512 * random.below((MiB - bytes) / 512);
          random.fill(model.subarray(offset, offset + bytes));
          await node.write(offset, model.subarray(offset, offset + bytes));
        }));
        if (turn % 6 === 5) await node.flush();
      }
      const back = new Uint8Array(SIZE);
      await node.read(0, back);
      expect(Buffer.compare(back, model)).toBe(0);
      await node.close();
      expect(Buffer.compare(readFileSync(image), model)).toBe(0);
    });

    test('a file system that is full says so, and holds what it said it took', async () => {
      const folder = await mounted();
      const image = `${folder}/disk.raw`;
      await createImage(image, { format: 'raw', size: 1024 * MiB });
      const node = await openImage(image, { format: 'raw' });
      const block = new Uint8Array(64 * KiB);
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
