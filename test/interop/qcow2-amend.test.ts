/** Images that qemu-img amend and resize changed in place stay ours to read and write. */
import { expect, test } from '@jest/globals';
import { createImage, Random } from '../../src/index.js';
import { allAgree, infoAgrees, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const CLUSTER = 65536;
const SIZE = 6 * 1024 * 1024;

const AMENDS = [
  { version: 3, option: 'compat=0.10', shows: { compat: '0.10' } },
  { version: 2, option: 'compat=1.1', shows: { compat: '1.1' } },
  { version: 3, option: 'refcount_bits=1', shows: { 'refcount-bits': 1 } },
  { version: 3, option: 'refcount_bits=64', shows: { 'refcount-bits': 64 } },
  { version: 3, option: 'lazy_refcounts=on', shows: { 'lazy-refcounts': true } },
] as const;

peers('qemu-img')('amend', () => {
  test.each(AMENDS)('of a version $version image of ours to $option', async ({ version, option, shows }) => {
    const path = tmp('image.qcow2');
    await createImage(path, { format: 'qcow2', size: SIZE, version });
    const twin = new Twin(tmp('twin.raw'), SIZE);
    const random = new Random(1);
    const step = async (): Promise<void> => {
      const steps = randomSteps(random, SIZE, CLUSTER, 12);
      await withImage(path, {}, (node) => stepsByUs(node, steps));
      for (const one of steps) twin.apply(one, CLUSTER);
    };
    await step();
    await runOk('qemu-img', ['amend', '-f', 'qcow2', '-o', option, path]);
    await allAgree(path, twin);
    expect((await infoAgrees(path))['format-specific'].data).toMatchObject(shows);
    await step();
    await allAgree(path, twin);
  });

  test('and resize: grown by QEMU, grown by us', async () => {
    const path = tmp('image.qcow2');
    const [grown, larger] = [SIZE + 2048, 700 * 1024 * 1024]; // the last needs a larger L1 table
    await createImage(path, { format: 'qcow2', size: SIZE });
    const data = Buffer.alloc(SIZE, 0x21);
    await withImage(path, {}, (node) => node.write(0, data));
    await runOk('qemu-img', ['resize', '-q', '-f', 'qcow2', path, String(grown)]);
    await withImage(path, {}, async (node) => {
      await node.driver.resize!(larger);
      await node.write(larger - 512, Buffer.alloc(512, 0x22));
    });
    const twin = new Twin(tmp('twin.raw'), larger);
    twin.write(0, data);
    twin.write(larger - 512, Buffer.alloc(512, 0x22));
    await allAgree(path, twin);
    await runOk('qemu-img', ['resize', '-q', '-f', 'qcow2', path, '5G']);
    await infoAgrees(path);
    await runOk('qemu-img', ['resize', '-q', '--shrink', '-f', 'qcow2', path, String(larger)]);
    await allAgree(path, twin);
  });
});
