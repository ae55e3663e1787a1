/**
 * Internal snapshots in random sequences of writes, creates, applies and deletes, each step done by QEMU or by us:
 * after every step both sides read the active disk and every snapshot alike, and neither's check finds anything.
 */
import { expect, test } from '@jest/globals';
import { createImage, Random } from '../../src/index.js';
import {
  allAgree, infoAgrees, qemuFindsNothing, qemuReadsAs, snapshotId, snapshotReadsAs, snapshotsOf, weFindNothing, weReadAs, withImage,
} from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByQemu, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

type Actor = 'us' | 'QEMU';

interface Geometry {
  readonly version: 2 | 3;
  readonly clusterSize: number;
  readonly refcountBits: number;
}

/** An image, its twin, and a twin of each snapshot. */
class Machine {
  readonly path = tmp('image.qcow2');
  readonly saved = new Map<string, Twin>();
  active: Twin;
  readonly #clusterSize: number;
  readonly #discardZeroes: boolean;
  #count = 0;

  constructor(active: Twin, clusterSize: number, discardZeroes: boolean) {
    this.active = active;
    this.#clusterSize = clusterSize;
    this.#discardZeroes = discardZeroes;
  }

  async write(actor: Actor, random: Random): Promise<void> {
    const steps = randomSteps(random, this.active.size, this.#clusterSize, 5);
    if (actor === 'QEMU') await stepsByQemu(this.path, steps);
    else await withImage(this.path, { discard: random.pick(['unmap', 'ignore']) }, (node) => stepsByUs(node, steps));
    for (const step of steps) this.active.apply(step, this.#clusterSize, this.#discardZeroes);
  }

  async create(actor: Actor): Promise<void> {
    const name = `s${++this.#count}`;
    if (actor === 'QEMU') await runOk('qemu-img', ['snapshot', '-c', name, this.path]);
    else await withImage(this.path, {}, (node) => node.drained(() => snapshotsOf(node).create({ name, vmStateSize: 0, dateSeconds: 1_700_000_000, dateNanoseconds: 5 })));
    this.saved.set(name, this.active.copy(tmp(`${name}.raw`)));
  }

  async apply(actor: Actor, name: string): Promise<void> {
    if (actor === 'QEMU') await runOk('qemu-img', ['snapshot', '-a', name, this.path]);
    else await withImage(this.path, {}, (node) => node.drained(() => snapshotsOf(node).apply(snapshotId(node, name))));
    this.active = this.saved.get(name)!.copy(this.active.path);
  }

  async delete(actor: Actor, name: string): Promise<void> {
    if (actor === 'QEMU') await runOk('qemu-img', ['snapshot', '-d', name, this.path]);
    else await withImage(this.path, {}, (node) => node.drained(() => snapshotsOf(node).delete(snapshotId(node, name))));
    this.saved.delete(name);
  }

  async step(actor: Actor, random: Random): Promise<string> {
    const names = [...this.saved.keys()];
    const kind = random.below(10);
    if (kind < 4 || (names.length === 0 && kind > 6)) {
      await this.write(actor, random);
      return `${actor} write`;
    }
    if (kind < 7 && names.length < 4) {
      await this.create(actor);
      return `${actor} create`;
    }
    const name = random.pick(names);
    await (kind < 9 ? this.apply(actor, name) : this.delete(actor, name));
    return `${actor} ${kind < 9 ? 'apply' : 'delete'} ${name}`;
  }

  async verify(): Promise<void> {
    await allAgree(this.path, this.active);
    const { snapshots = [] } = await infoAgrees(this.path);
    expect(snapshots.map(({ name }) => name)).toEqual([...this.saved.keys()]);
    for (const [name, twin] of this.saved) {
      // qemu-img convert -l takes the active disk's size for the snapshot's
      if (twin.size === this.active.size) await snapshotReadsAs(this.path, name, twin);
      else await weReadAs(this.path, twin, { snapshot: name });
    }
  }
}

async function makeMachine(maker: Actor, { version, clusterSize, refcountBits }: Geometry, size: number): Promise<Machine> {
  const twin = new Twin(tmp('active.raw'), size);
  const machine = new Machine(twin, clusterSize, true);
  if (maker === 'us') await createImage(machine.path, { format: 'qcow2', size, version, clusterSize, refcountBits });
  else await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `compat=${version === 2 ? '0.10' : '1.1'},cluster_size=${clusterSize},refcount_bits=${refcountBits}`, machine.path, String(size)]);
  return machine;
}

async function runSequence(machine: Machine, actors: readonly Actor[], random: Random, count: number): Promise<void> {
  const log: string[] = [];
  await machine.write(actors[0]!, random);
  for (let index = 0; index < count; index++) {
    log.push(await machine.step(random.pick(actors), random));
    try {
      await machine.verify();
    } catch (error) {
      throw new Error(`after ${log.join(', ')}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
}

const GEOMETRIES: readonly Geometry[] = [
  { version: 3, clusterSize: 64 * KiB, refcountBits: 16 }, { version: 2, clusterSize: 64 * KiB, refcountBits: 16 },
  { version: 3, clusterSize: 512, refcountBits: 16 }, { version: 3, clusterSize: 4 * KiB, refcountBits: 4 },
  { version: 3, clusterSize: MiB, refcountBits: 64 },
];

peers('qemu-img', 'qemu-io')('internal snapshots', () => {
  test.each(GEOMETRIES)('of ours, with %j', async (geometry) => {
    const machine = await makeMachine('us', geometry, Math.max(2 * MiB, 5 * geometry.clusterSize) + 512);
    await runSequence(machine, ['us'], new Random(geometry.clusterSize), 9);
  }, 120_000);

  test.each(GEOMETRIES)('by QEMU and us in turn, with %j', async (geometry) => {
    const machine = await makeMachine('QEMU', geometry, Math.max(2 * MiB, 5 * geometry.clusterSize) + 512);
    await runSequence(machine, ['QEMU', 'us'], new Random(geometry.clusterSize + 1), 14);
  }, 120_000);

  test('of a compressed image', async () => {
    const geometry = GEOMETRIES[0]!;
    const machine = await makeMachine('us', geometry, 3 * MiB);
    machine.active.write(0, Buffer.alloc(2 * MiB, 'compressible '));
    await runOk('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', machine.active.path, machine.path]);
    await runSequence(machine, ['us', 'QEMU'], new Random(11), 14);
  }, 120_000);

  test('with different disk sizes', async () => {
    const machine = await makeMachine('us', GEOMETRIES[0]!, 2 * MiB);
    await machine.write('us', new Random(1));
    await machine.create('us');
    const small = machine.active;
    const grown = 3 * MiB + 512;
    await withImage(machine.path, {}, (node) => node.driver.resize!(grown));
    machine.active = new Twin(tmp('grown.raw'), grown);
    machine.active.write(0, small.read(0, small.size));
    await machine.write('QEMU', new Random(2));
    await machine.create('QEMU');
    await machine.verify();
    for (const [actor, name] of [['us', 's1'], ['QEMU', 's2'], ['QEMU', 's1'], ['us', 's2']] as const) {
      await machine.apply(actor, name);
      await machine.verify();
    }
  });

  test('that the refcount width cannot hold are refused, and nothing has changed', async () => {
    const machine = await makeMachine('us', { version: 3, clusterSize: 64 * KiB, refcountBits: 1 }, 2 * MiB);
    await machine.write('us', new Random(1));
    await expect(machine.create('us')).rejects.toMatchObject({ code: 'NO_SPACE', message: expect.stringContaining('a refcount of 2 does not fit in 1 bits') });
    await qemuFindsNothing(machine.path);
    await weFindNothing(machine.path);
    await qemuReadsAs(machine.path, machine.active);
    expect((await infoAgrees(machine.path)).snapshots).toBeUndefined();
  });
});
