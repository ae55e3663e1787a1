/**
 * Commit and stream on random chains of two to four images of different sizes, under guests that never rest, with pauses,
 * changes of speed and cancels: guests read what they wrote at any time, and QEMU reads the same from the files.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Random, startActiveCommit, startCommit, startStream, type BlockJob } from '../../src/index.js';
import { firstDifference, makeRandomChain, StripedGuests, type Chain } from '../support/chain-model.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const turns = async (count: number): Promise<void> => { for (let left = count; left > 0; left--) await new Promise<void>((resolve) => { setImmediate(resolve); }); };

/** Returns the job and the file that holds the disk when it has completed. */
async function startOne({ jobs, graph, nodes, files }: Chain, random: Random): Promise<{ readonly job: BlockJob; readonly holder: string }> {
  const active = nodes.at(-1)!;
  const last = nodes.length - 1;
  const common = { jobId: 'j', speed: random.chance(0.3) ? 64 * 2 ** 20 : 0 };
  const base = random.below(last);
  if (random.chance(0.4)) return { job: await startStream(graph, jobs, { ...common, node: active, base: random.chance(0.5) ? nodes[base] : null }), holder: files[last]! };
  if (last === 1 || random.chance(0.3)) {
    const { blockJob } = await startActiveCommit(graph, jobs, { ...common, top: active, base: nodes[base]! });
    return { job: blockJob, holder: files[base]! };
  }
  const top = 1 + random.below(last - 1);
  return { job: await startCommit(graph, jobs, { ...common, active, top: nodes[top]!, base: nodes[random.below(top)]! }), holder: files[last]! };
}

async function disturb(blockJob: BlockJob, random: Random): Promise<boolean> {
  const { job } = blockJob;
  const alive = (): boolean => job.status === 'running' || job.status === 'paused';
  for (let left = random.below(4); left > 0 && alive(); left--) {
    await turns(random.below(30));
    if (!alive()) break;
    if (random.chance(0.5)) blockJob.setSpeed(random.chance(0.5) ? 0 : 32 * 2 ** 20);
    else if (!job.userPaused) {
      job.pause();
      await turns(random.below(20));
      // it may have run to its end meanwhile
      if (['running', 'paused', 'ready', 'standby'].includes(job.status)) job.resume();
    }
  }
  if (!alive() || random.chance(0.7)) return false;
  job.cancel();
  return true;
}

async function one(seed: number): Promise<void> {
  const random = new Random(seed);
  const folder = tmp(`chain-${seed}`);
  mkdirSync(folder);
  const chain = await makeRandomChain(folder, random, 2 + random.below(3));
  const guests = await StripedGuests.on(chain, seed);
  await turns(5);
  const { job: blockJob, holder } = await startOne(chain, random);
  const { job } = blockJob;
  const cancelled = await disturb(blockJob, random);
  while (!cancelled && job.status !== 'null' && !job.isReady) await turns(5);
  if (job.isReady) job.complete();
  await job.ended;
  await turns(20);
  await guests.stop();
  expect([seed, job.error]).toEqual([seed, cancelled ? 'Operation canceled' : null]);
  expect([seed, await firstDifference(guests.door, chain.disk.subarray(0, guests.door.node.length()))]).toEqual([seed, null]);
  const size = guests.door.node.length();
  await chain.graph.detach(guests.door);
  await chain.graph.closeAll();
  const file = cancelled ? chain.files.at(-1)! : holder;
  await judge(file, chain.disk, size, join(folder, 'flat'));
}

/** The chain is sound for QEMU, and shows the disk. */
async function judge(file: string, disk: Buffer, size: number, flat: string): Promise<void> {
  writeFileSync(flat, disk);
  const info = JSON.parse(await runOk('qemu-img', ['info', '--output=json', '--backing-chain', file])) as readonly { readonly filename: string }[];
  for (const { filename } of info) expect(await runOk('qemu-img', ['check', filename])).toContain('No errors');
  // a base that was longer stays so: what lies beyond the disk is its own
  const { code, stdout } = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', flat, file]);
  if (size === disk.byteLength) expect([code, stdout]).toEqual([0, expect.stringContaining('identical')]);
}

peers('qemu-img')('a disk stays what it is', () => {
  for (let seed = 1; seed <= 40; seed += 8) {
    test(`J-1, J-16: seeds ${seed} to ${seed + 7}`, async () => { for (let each = seed; each < seed + 8; each++) await one(each); }, 120_000);
  }
});

