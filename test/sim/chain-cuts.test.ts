/**
 * Power cuts while commit and stream run, and while they rewrite headers: whatever survived in the caches of the disks, the
 * chain that the headers name shows the same disk, and no image is worse than leaky.
 */
import { expect, test } from '@jest/globals';
import { BlockGraph } from '../../src/block/graph.js';
import { BlockNode } from '../../src/block/node.js';
import { Random } from '../../src/base/clock.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { BlockJobs, type BlockJob } from '../../src/job/block-job.js';
import { startCommit } from '../../src/job/commit.js';
import { JobTable } from '../../src/job/job-table.js';
import { startStream } from '../../src/job/stream.js';
import type { BlockDriver } from '../../src/block/driver.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { readReferences } from '../support/qcow2-references.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes } from '../support/storage.js';

const KiB = 1024;
const UNIT = 64 * KiB;
const NAMES = ['base', 'mid', 'top'] as const;
type Name = (typeof NAMES)[number];
type Files = Readonly<Record<Name, Uint8Array>>;

/** The images and the disk that they show. */
async function makeImages(random: Random): Promise<{ readonly files: Files; readonly disk: Uint8Array }> {
  const files: Partial<Record<Name, Uint8Array>> = {};
  let disk = new Uint8Array(0);
  for (const [index, name] of NAMES.entries()) {
    const size = (8 + random.below(12)) * 128 * KiB;
    const storage = new MemoryDriver();
    const file = new BlockNode({ name, driver: new KeptOpen(storage) });
    await createQcow2(file, { size, clusterSize: 2 ** (12 + random.below(5)), ...(index === 0 ? {} : { backingFile: NAMES[index - 1]!, backingFormat: 'qcow2' }) });
    const image = new BlockNode({ name, driver: await openQcow2(file) });
    const next = new Uint8Array(size);
    next.set(disk.subarray(0, size));
    disk = next;
    for (let left = 1 + random.below(4); left > 0; left--) {
      // whole clusters: the image is made without its backing file
      const offset = random.below(size / UNIT) * UNIT;
      const data = Buffer.alloc(Math.min((1 + random.below(5)) * UNIT, size - offset), random.below(256));
      await image.write(offset, data);
      disk.set(data, offset);
    }
    await image.close();
    files[name] = await fileBytes(storage);
  }
  return { files: files as Files, disk };
}

/** The image, and what its header names as backing file, and so on. */
async function openChain(storage: (name: string) => BlockDriver, name: string, adopt: (node: BlockNode) => BlockNode): Promise<BlockNode> {
  const file = adopt(new BlockNode({ name, nodeName: `${name}-file`, driver: storage(name) }));
  const driver = await openQcow2(file, { openBacking: (backing) => openChain(storage, backing, adopt) });
  return adopt(new BlockNode({ name, nodeName: name, driver, pinned: true }));
}

async function startJob(graph: BlockGraph, top: BlockNode, kind: Kind): Promise<BlockJob> {
  const jobs = new BlockJobs(new JobTable(() => undefined), { emit: () => undefined });
  const [mid, base] = [graph.get('mid'), graph.get('base')];
  if (kind === 'commit') return startCommit(graph, jobs, { jobId: 'j', active: top, top: mid, base, backingFile: 'base' });
  return startStream(graph, jobs, { jobId: 'j', node: top, base: kind === 'stream' ? null : base, backingFile: kind === 'stream' ? undefined : 'base' });
}

type Kind = 'commit' | 'stream' | 'stream to base';

/** Runs the job on the images; returns what is left of them after a cut, or after the end. */
async function runJob(files: Files, kind: Kind, random: Random, cut: { readonly name: Name; readonly steps: number } | null) {
  const disks = Object.fromEntries(NAMES.map((name) => [name, new SimDisk({ random, content: files[name], ...(cut?.name === name ? { cutAfter: cut.steps } : {}) })])) as Record<Name, SimDisk>;
  const graph = new BlockGraph({ randomBelow: () => 0 });
  const run = async (): Promise<string | null> => {
    const top = await openChain((name) => disks[name as Name], 'top', (node) => {
      graph.takeName(node.nodeName);
      graph.add(node);
      return node;
    });
    await graph.refresh([top]);
    const { job } = await startJob(graph, top, kind);
    await job.ended;
    await graph.closeAll();
    return job.error;
  };
  const powerCuts = Object.values(disks).map(({ powerCut }) => powerCut.then(() => 'cut'));
  const ended = await Promise.race([run(), ...powerCuts]);
  for (const disk of Object.values(disks)) disk.kill();
  const left = Object.fromEntries(NAMES.map((name) => [name, ended === 'cut' ? disks[name].survivors(random) : disks[name].content()])) as unknown as Files;
  return { ended, left, steps: Object.fromEntries(NAMES.map((name) => [name, disks[name].steps])) as Record<Name, number> };
}

async function expectDisk(files: Files, disk: Uint8Array, when: string): Promise<number> {
  const used = new Set<string>();
  const top = await openChain((name) => {
    used.add(name);
    return new SimDisk({ random: new Random(1), content: files[name as Name] });
  }, 'top', (node) => node);
  const read = new Uint8Array(top.length());
  await top.read(0, read);
  const wrong = Buffer.compare(read, disk) === 0 ? -1 : read.findIndex((byte, index) => byte !== disk[index]);
  expect([when, wrong]).toEqual([when, -1]);
  expect([when, read.byteLength]).toEqual([when, disk.byteLength]);
  for (const name of used) expect([when, name, readReferences(files[name as Name]).problems]).toEqual([when, name, []]);
  return used.size;
}

async function one(seed: number, kind: Kind): Promise<'cut' | 'whole'> {
  const random = new Random(seed);
  const { files, disk } = await makeImages(random);
  await expectDisk(files, disk, `seed ${seed}, ${kind}, before`);
  const whole = await runJob(files, kind, new Random(seed + 1), null);
  expect([seed, whole.ended]).toEqual([seed, null]);
  const layers = await expectDisk(whole.left, disk, `seed ${seed}, ${kind}, completed`);
  expect([seed, layers]).toEqual([seed, kind === 'stream' ? 1 : 2]);
  const name = random.pick(kind === 'commit' ? ['base', 'top', 'top'] as const : ['top'] as const);
  // late cuts meet the rewriting of headers
  const steps = random.chance(0.4) ? Math.max(0, whole.steps[name] - random.below(40)) : random.below(whole.steps[name]);
  const cut = await runJob(files, kind, new Random(seed + 1), { name, steps });
  await expectDisk(cut.left, disk, `seed ${seed}, ${kind}, cut after step ${steps} of ${whole.steps[name]} on ${name}`);
  return cut.ended === 'cut' ? 'cut' : 'whole';
}

test.each(['commit', 'stream', 'stream to base'] as const)('a power cut during a %s loses nothing', async (kind) => {
  let cuts = 0;
  for (let seed = 1; seed <= 16; seed++) if (await one(seed, kind) === 'cut') cuts++;
  expect(cuts).toBeGreaterThan(6);
}, 120_000);
