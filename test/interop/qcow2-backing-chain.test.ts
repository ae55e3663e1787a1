/** Backing chains three images deep: reads fall through, writes copy up, zeros and discards hide what lies below. */
import { expect, test } from '@jest/globals';
import { createImage, Random } from '../../src/index.js';
import { allAgree, infoAgrees, qemuFindsNothing, weFindNothing, weReadAs, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByQemu, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

type Maker = 'us' | 'QEMU';

interface Layer {
  readonly size: number;
  readonly clusterSize: number;
  readonly version: 2 | 3;
}

/** Sizes differ: a backing file may be shorter or longer than what lies on it. */
const LAYERS: readonly Layer[] = [
  { size: 5 * MiB + 512, clusterSize: 64 * KiB, version: 3 },
  { size: 3 * MiB + 1536, clusterSize: 4 * KiB, version: 3 },
  { size: 6 * MiB + 1024, clusterSize: 128 * KiB, version: 3 },
];
const OLD_LAYERS = LAYERS.map((layer) => ({ ...layer, version: 2 as const }));

async function create(maker: Maker, index: number, { size, clusterSize, version }: Layer): Promise<string> {
  const path = tmp(`layer-${index}.qcow2`);
  const backing = index === 0 ? undefined : `layer-${index - 1}.qcow2`;
  if (maker === 'us') {
    await createImage(path, { format: 'qcow2', size, clusterSize, version, ...(backing === undefined ? {} : { backingFile: backing, backingFormat: 'qcow2' }) });
  } else {
    const below = backing === undefined ? [] : ['-b', backing, '-F', 'qcow2'];
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize},compat=${version === 2 ? '0.10' : '1.1'}`, ...below, path, String(size)]);
  }
  return path;
}

/** What a new overlay shows: the layer below, cut or filled up with zeros. */
function overlayTwin(below: Twin | null, index: number, size: number): Twin {
  const twin = new Twin(tmp(`twin-${index}.raw`), size);
  if (below !== null) twin.write(0, below.read(0, Math.min(size, below.size)));
  return twin;
}

peers('qemu-img', 'qemu-io')('a backing chain', () => {
  test.each([
    ['us', LAYERS], ['QEMU', LAYERS], ['us', OLD_LAYERS], ['QEMU', OLD_LAYERS],
  ] as const)('made by %s, with %j', async (maker, layers) => {
    const random = new Random(layers[0]!.version);
    let below: Twin | null = null;
    for (const [index, layer] of layers.entries()) {
      const path = await create(maker, index, layer);
      const twin = overlayTwin(below, index, layer.size);
      const steps = randomSteps(random, layer.size, layer.clusterSize, 12);
      if (maker === 'us') await withImage(path, {}, (node) => stepsByUs(node, steps));
      else await stepsByQemu(path, steps);
      for (const step of steps) twin.apply(step, layer.clusterSize, layer.version === 3 || index === 0);
      await allAgree(path, twin);
      below = twin;
    }
    const top = tmp('layer-2.qcow2');
    expect(await infoAgrees(top)).toMatchObject({ 'backing-filename': 'layer-1.qcow2', 'backing-filename-format': 'qcow2' });
    const more = randomSteps(random, layers[2]!.size, layers[2]!.clusterSize, 12);
    if (maker === 'us') await stepsByQemu(top, more);
    else await withImage(top, {}, (node) => stepsByUs(node, more));
    for (const step of more) below!.apply(step, layers[2]!.clusterSize, layers[2]!.version === 3);
    await allAgree(top, below!);
  });

  test('over a raw image', async () => {
    const base = new Twin(tmp('base.raw'), 2 * MiB + 700);
    const random = new Random(3);
    for (const step of randomSteps(random, base.size, 64 * KiB, 6)) base.apply(step, 64 * KiB);
    const path = tmp('top.qcow2');
    const size = 3 * MiB;
    await createImage(path, { format: 'qcow2', size, backingFile: 'base.raw', backingFormat: 'raw' });
    const twin = overlayTwin(base, 1, size);
    const steps = randomSteps(random, size, 64 * KiB, 10);
    await withImage(path, {}, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, 64 * KiB);
    await allAgree(path, twin);
  });

  test('grown by us shows zeros where the backing file goes on', async () => {
    const base = await create('QEMU', 0, LAYERS[0]!);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 0x5a 0 ${LAYERS[0]!.size}`, base]);
    const path = await create('QEMU', 1, LAYERS[1]!);
    await withImage(path, {}, (node) => node.driver.resize!(LAYERS[0]!.size));
    const twin = new Twin(tmp('twin.raw'), LAYERS[0]!.size);
    twin.write(0, Buffer.alloc(LAYERS[1]!.size, 0x5a));
    await qemuFindsNothing(path);
    await weFindNothing(path);
    await weReadAs(path, twin);
    expect(await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', path, twin.path])).toContain('identical');
  });
});
