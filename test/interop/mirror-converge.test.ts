/**
 * The classic: a guest that writes 1 KiB after the other for ever, over a target that takes 5 MB/s. A mirror in the
 * background never ends; write-blocking and auto do, in the time that the target's speed allows; and a guest never waits
 * long for a server that has stopped answering.
 */
import { expect, test } from '@jest/globals';
import { MiB, sleep, waitFor } from '../support/cli.js';
import { ConvergeLab, FoundingLoop, TARGET_RATE, type Told } from '../support/converge-lab.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers, type NbdPeer } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const BYTES = 16 * MiB;
const COPY_MS = BYTES / TARGET_RATE * 1000;
/** For machines that do other things as well. */
const SLACK_MS = 10_000;
const nbd = (name: string) => ({ driver: 'nbd', 'node-name': name, server: { type: 'unix', path: tmp('peer') } });

/** nbdkit writes to the file, at the rate that its filter `how` leaves it. */
async function slowServer(...how: string[]): Promise<ConvergeLab> {
  const file = ConvergeLab.emptyFile(tmp('copy'), BYTES);
  await startPeer('nbdkit', nbdkitArgs(tmp('peer'), how[0]!, 'file', file, ...how.slice(1)), tmp('peer'));
  return ConvergeLab.start(tmp, BYTES, [nbd('target')]);
}

/** A throttle node of ours over an export of qemu-nbd. */
async function throttled(): Promise<{ readonly lab: ConvergeLab; readonly server: NbdPeer }> {
  const server = await startPeer('qemu-nbd', qemuNbdArgs(tmp('peer'), ConvergeLab.emptyFile(tmp('copy'), BYTES)), tmp('peer'));
  const lab = await ConvergeLab.start(tmp, BYTES, [nbd('fast'), { driver: 'throttle', 'node-name': 'target', 'throttle-group': 'slow', file: 'fast' }],
    [`throttle-group,id=slow,x-bps-write=${TARGET_RATE}`]);
  return { lab, server };
}

peers('nbdkit')('a target that its server limits', () => {
  test('background does not converge; write-blocking does, changed to while it runs, and the other way', async () => {
    const lab = await slowServer('--filter=rate', `rate=${TARGET_RATE * 8}`, 'burstiness=0.25');
    const loop = await FoundingLoop.start(lab.nbd);
    const began = await lab.mirror({ 'copy-mode': 'background' });
    // by then all of the disk has been copied, and has to be copied again
    expect(await lab.ready(began, 2 * COPY_MS)).toBeNull();
    const { len, offset } = await lab.job();
    const remaining = len - offset;
    expect(offset).toBeGreaterThan(BYTES);
    expect(remaining).toBeGreaterThan(BYTES / 4);
    const changed = performance.now();
    await lab.change('write-blocking');
    expect(await lab.ready(changed, remaining / TARGET_RATE * 1000 + SLACK_MS)).not.toBeNull();
    // back again, at once: what is written differs
    await lab.change('background');
    await waitFor('it falls behind', async () => { const job = await lab.job(); return job.len - job.offset > 64 * 1024; }, SLACK_MS);
    await lab.change('write-blocking');
    await lab.pivot(loop, tmp('copy'));
    expect(lab.phases()).toEqual([]);
  }, 120_000);
});

/** What is told while it goes on, against what is known. */
function expectPlausible(told: readonly Told[]): void {
  for (const { dirty, eta, phase, 'copy-mode': mode, 'copy-rate': copyRate, 'dirty-rate': dirtyRate, 'guest-rate': guestRate } of told) {
    // what is on its way may have been written again
    expect(dirty).toBeGreaterThanOrEqual(0);
    expect(dirty).toBeLessThanOrEqual(1.5 * BYTES);
    expect(copyRate).toBeLessThan(4 * TARGET_RATE); // what fits in sockets is taken at once
    expect(dirtyRate).toBeGreaterThanOrEqual(0);
    expect(eta ?? 0).toBeGreaterThanOrEqual(0);
    expect(guestRate ?? Infinity).toBeGreaterThan(0);
    expect(mode).toBe(phase === 'sync' || phase === 'ready' ? 'write-blocking' : 'background');
  }
  const known = told.filter(({ deadline }) => deadline !== undefined);
  expect(known.length).toBeGreaterThan(0);
  for (const { 'copy-rate': copyRate, converges } of known) {
    expect(copyRate).toBeGreaterThan(TARGET_RATE / 4);
    expect(converges).toBe(true);
  }
  // the time that is left passes
  for (const [index, { deadline }] of known.entries()) if (index > 0) expect(deadline).toBeLessThanOrEqual(known[index - 1]!.deadline!);
  expect(known.at(-1)!.dirty).toBeLessThan(known[0]!.dirty);
}

peers('qemu-nbd')('copy mode auto over a throttled export', () => {
  test('with the defaults it is ready within 2 x (bytes / target rate) + 15 s; what it tells of itself is plausible', async () => {
    const { lab } = await throttled();
    const loop = await FoundingLoop.start(lab.nbd);
    const told: Told[] = [];
    const began = await lab.mirror({ 'x-quiesce-copy-mode': 'auto' });
    const took = await lab.ready(began, 2 * COPY_MS + 15_000, (job) => {
      const now = job['x-quiesce-convergence'];
      if (now !== undefined) told.push(now);
    });
    expect(took).not.toBeNull();
    expect(took!).toBeGreaterThan(COPY_MS * 0.8);
    expectPlausible(told);
    await waitFor('it tells of that', () => lab.phases().at(-1) === 'ready');
    const phases = lab.phases();
    expect([phases[0], phases.includes('sync')]).toEqual(['bulk', true]);
    expect(phases.filter((phase, index) => phase === phases[index - 1])).toEqual([]);
    const events = lab.events.filter(({ name }) => name === 'BLOCK_JOB_PHASE').map(({ data }) => data);
    for (const event of events) {
      expect(event).toMatchObject({ device: 'j', phase: expect.any(String), 'copy-mode': expect.any(String), dirty: expect.any(Number), 'copy-rate': expect.any(Number), 'dirty-rate': expect.any(Number) });
    }
    expect(events.at(-1)).toMatchObject({ dirty: 0, eta: 0, converges: true });
    await lab.pivot(loop, tmp('copy'));
  }, 120_000);
});

/** Until the mirror is where guests wait for the target: on the way to be ready, or ready. */
async function untilSynchronous(lab: ConvergeLab, phase: string): Promise<void> {
  await waitFor(`phase ${phase}`, async () => {
    const { ready, 'x-quiesce-convergence': now } = await lab.job();
    return phase === 'ready' ? ready && now?.phase === 'ready' : now?.['copy-mode'] === 'write-blocking';
  });
}

async function untilBack(lab: ConvergeLab): Promise<void> {
  await waitFor('guests write through again', async () => {
    const { ready, 'x-quiesce-convergence': now } = await lab.job();
    return ready && now?.['copy-mode'] === 'write-blocking';
  });
}

peers('qemu-nbd')('max-guest-latency', () => {
  test.each([['sync', 300], ['ready', 1000]])('a server that stops in phase %s keeps guests for %d ms at most, and is gone back to when it lives again', async (phase, latency) => {
    const { lab, server } = await throttled();
    const loop = await FoundingLoop.start(lab.nbd);
    await lab.mirror({ 'x-quiesce-copy-mode': 'auto', 'x-quiesce-deadline': 3000, 'x-quiesce-max-guest-latency': latency });
    await untilSynchronous(lab, phase);
    const { writes } = loop;
    loop.slowestMs = 0;
    server.process.kill('SIGSTOP');
    try {
      await sleep(latency + 2000);
      // a busy machine is late as well
      expect(Math.max(loop.slowestMs, loop.waitingMs)).toBeLessThan(latency + 1500);
      expect(loop.writes - writes).toBeGreaterThan(20);
      expect((await lab.job())['x-quiesce-convergence']).toMatchObject({ 'copy-mode': 'background', converges: false });
      expect(lab.events.findLast(({ name }) => name === 'BLOCK_JOB_PHASE')!.data).toMatchObject({ 'copy-mode': 'background', converges: false });
    } finally {
      server.process.kill('SIGCONT');
    }
    await untilBack(lab);
    await lab.pivot(loop, tmp('copy'));
  }, 120_000);
});

peers('nbdkit')('a target that answers, but after two seconds', () => {
  test('is only written to in the background', async () => {
    const lab = await slowServer('--filter=delay', 'delay-write=2');
    const loop = await FoundingLoop.start(lab.nbd);
    await lab.mirror({ 'x-quiesce-copy-mode': 'auto', 'x-quiesce-deadline': 2000, 'x-quiesce-max-guest-latency': 500 });
    await sleep(8000);
    expect(Math.max(loop.slowestMs, loop.waitingMs)).toBeLessThan(500 + 1200);
    const { offset, 'x-quiesce-convergence': now } = await lab.job();
    expect(offset).toBeGreaterThan(0);
    expect(now!['copy-rate']).toBeGreaterThan(0);
    await lab.qmp.execute('block-job-cancel', { device: 'j', force: true });
    await loop.stop();
  });
});
