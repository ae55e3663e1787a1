/** detect-zeroes and discard: the same writes through qemu-io and through ours leave images that are mapped alike. */
import { expect, test } from '@jest/globals';
import { createImage, openImage, RequestFlag, makeRequest } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;

interface Extent { readonly start: number; readonly zero: boolean; readonly data: boolean }

/** Where data and zeros lie; QEMU also marks as zero what was never written, which makes no difference to a reader. */
async function mapped(path: string): Promise<string[]> {
  const extents = JSON.parse(await runOk('qemu-img', ['map', '--output=json', path])) as Extent[];
  const kinds = extents.map(({ start, zero, data }) => ({ start, kind: `zero=${zero} data=${data}` }));
  return kinds.filter(({ kind }, index) => kind !== kinds[index - 1]?.kind).map(({ start, kind }) => `${start}: ${kind}`);
}

peers('qemu-io', 'qemu-img')('node options', () => {
  test.each([
    ['off', 'ignore'], ['on', 'ignore'], ['on', 'unmap'], ['unmap', 'unmap'],
  ] as const)('detect-zeroes=%s, discard=%s', async (detectZeroes, discard) => {
    const [theirs, ours] = [tmp('theirs.qcow2'), tmp('ours.qcow2')];
    for (const path of [theirs, ours]) await createImage(path, { format: 'qcow2', size: 2 ** 20 });
    await runOk('qemu-io', ['--image-opts', `driver=qcow2,file.filename=${theirs},detect-zeroes=${detectZeroes},discard=${discard}`,
      '-c', 'write -P 1 0 512k', '-c', 'write -P 0 64k 64k', '-c', 'write -P 0 640k 64k', '-c', 'discard 128k 64k', '-c', 'write -z 256k 64k', '-c', 'write -z -u 384k 64k']);
    const name = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: ours }, 'detect-zeroes': detectZeroes, discard })}`;
    {
      await using node = await openImage(name);
      await node.write(0, Buffer.alloc(512 * KiB, 1));
      await node.write(64 * KiB, Buffer.alloc(64 * KiB));
      await node.write(640 * KiB, Buffer.alloc(64 * KiB));
      await node.discard(128 * KiB, 64 * KiB);
      await node.writeZeroes(256 * KiB, 64 * KiB);
      await node.submit(makeRequest('write-zeroes', 384 * KiB, 64 * KiB, null, RequestFlag.MAY_UNMAP));
    }
    expect(await mapped(ours)).toEqual(await mapped(theirs));
    await runOk('qemu-img', ['compare', theirs, ours]);
    await runOk('qemu-img', ['check', '-q', ours]);
  });
});
