/** How `quiesce mirror` and `quiesce job` steer a mirror in copy mode auto: what each option does to a guest that never rests, and whether forecasts come true. */
import { expect, test } from '@jest/globals';
import { expectRefused, MiB, quiesceOk, sleep, startQuiesce, waitFor } from '../support/cli.js';
import { ConvergeLab, FollowingGuest, FoundingLoop, TARGET_RATE } from '../support/converge-lab.js';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const BYTES = 16 * MiB;
const COPY_MS = BYTES / TARGET_RATE * 1000;
const SLACK_MS = 10_000;

test.each([
  [['--deadline', '0'], /deadline/], [['--deadline', 'soon'], /deadline/], [['--deadline', '5000000'], /deadline/],
  [['--max-guest-latency', '5'], /max-guest-latency/], [['--max-guest-latency', '700000'], /max-guest-latency/],
  [['--throttle-below', 'little'], /throttle-below/], [['--throttle-below', '-1'], /throttle-below/], [['--min-guest-rate', '1X'], /min-guest-rate/],
  ...['--deadline', '--max-guest-latency', '--throttle-below', '--min-guest-rate'].map((name): [string[], RegExp] => [[name, '100', '--copy-mode', 'background', '--daemon', 'nowhere'], /goe?s? with --copy-mode auto/]),
  ...['--deadline', '--max-guest-latency', '--throttle-below', '--min-guest-rate'].map((name): [string[], RegExp] => [[name, '100'], /goe?s? with --daemon or --qmp/]),
])('%j is refused', async (args, message) => {
  await expectRefused(['mirror', 'a', 'b', ...args], message, 2);
});

async function slowTarget(): Promise<ConvergeLab> {
  const file = ConvergeLab.emptyFile(tmp('copy'), BYTES);
  await startPeer('nbdkit', nbdkitArgs(tmp('peer'), '--filter=rate', 'file', file, `rate=${TARGET_RATE * 8}`, 'burstiness=0.25'), tmp('peer'));
  return ConvergeLab.start(tmp, BYTES, [{ driver: 'nbd', 'node-name': 'target', server: { type: 'unix', path: tmp('peer') } }]);
}

async function slowLab(): Promise<{ readonly lab: ConvergeLab; readonly loop: FoundingLoop }> {
  const lab = await slowTarget();
  return { lab, loop: await FoundingLoop.start(lab.nbd) };
}

interface Phase {
  readonly event: string;
  readonly phase: string;
  readonly 'guest-rate'?: number;
  readonly deadline?: number;
  readonly converges?: boolean;
}

/** Runs `quiesce mirror` until it ends; returns the phases that it told, and how long it took. */
async function mirror(lab: ConvergeLab, args: readonly string[]): Promise<{ readonly code: number | null; readonly phases: Phase[]; readonly ms: number }> {
  const began = performance.now();
  const running = startQuiesce(['mirror', '--daemon', lab.monitor, 'source', 'target', '--json', ...args]);
  const { code, stdout } = await running.done;
  const phases = stdout.split('\n').filter((line) => line.includes('BLOCK_JOB_PHASE')).map((line) => JSON.parse(line) as Phase);
  return { code, phases, ms: performance.now() - began };
}

peers('nbdkit')('a guest that never rests', () => {
  test('--deadline: ready by then', async () => {
    const { lab, loop } = await slowLab();
    const { code, ms, phases } = await mirror(lab, ['--deadline', '6']);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(6000 + SLACK_MS);
    expect([phases[0]!.phase, phases.some(({ phase }) => phase === 'sync')]).toEqual(['bulk', true]);
    for (const { deadline, converges } of phases.slice(1)) expect([deadline! <= 6000, converges]).toEqual([true, true]);
    await loop.stop();
  }, 120_000);

  test('--min-guest-rate: it is slowed down less, and never below', async () => {
    const { lab, loop } = await slowLab();
    const rates: number[] = [];
    const look = async (): Promise<boolean> => {
      const rate = (await lab.job().catch(() => null))?.['x-quiesce-convergence']?.['guest-rate'];
      if (rate !== undefined) rates.push(rate);
      return false;
    };
    for (const more of [[], ['--min-guest-rate', '1M']]) {
      rates.length = 0;
      const running = mirror(lab, ['--deadline', '8', ...more]);
      while (!await Promise.race([running.then(() => true), sleep(50).then(look)]));
      expect((await running).code).toBe(0);
      if (more.length === 0) expect(Math.min(...rates)).toBeLessThan(MiB / 4);
      else expect(Math.min(...rates)).toBeGreaterThanOrEqual(MiB);
    }
    await loop.stop();
  }, 120_000);

  test('a phase is told by job show, and job change ends the steering', async () => {
    const { lab, loop } = await slowLab();
    const running = mirror(lab, ['--deadline', '600', '--speed', '256K']);
    await waitFor('it is steered', async () => (await lab.job().catch(() => null))?.['x-quiesce-convergence']?.deadline !== undefined, 30_000);
    const { device } = await lab.job();
    expect(await quiesceOk(['job', 'show', '--daemon', lab.otherMonitor, device])).toMatch(/auto: (bulk|converge), .* dirty, copies .*\/s, guests dirty .*\/s/);
    await quiesceOk(['job', 'change', '--daemon', lab.otherMonitor, device, '--copy-mode', 'write-blocking']);
    expect(await quiesceOk(['job', 'list', '--daemon', lab.otherMonitor, '--json'])).not.toContain('x-quiesce-convergence');
    const changed = performance.now();
    await quiesceOk(['job', 'set-speed', '--daemon', lab.otherMonitor, device, '0']);
    expect((await running).code).toBe(0);
    expect(performance.now() - changed).toBeLessThan(2 * COPY_MS + 2 * SLACK_MS);
    await loop.stop();
  }, 120_000);
});

peers('nbdkit')('a guest that writes nearly as fast as the target takes it', () => {
  test.each([['1', false], ['1G', true]])('--throttle-below %s: near the end it is slowed down, or not', async (below, slowedDown) => {
    const lab = await slowTarget();
    const guest = await FollowingGuest.start(lab);
    const { code, phases } = await mirror(lab, ['--deadline', '600', '--throttle-below', below]);
    const names = phases.map(({ phase }) => phase);
    expect([code, names[0], names.includes('converge')]).toEqual([0, 'bulk', slowedDown]);
    await guest.stop();
  }, 120_000);
});

peers('nbdkit')('--forecast', () => {
  test.each(['a guest that never rests', 'an idle guest'])('comes true with %s', async (guest) => {
    const { lab, loop } = await slowLab();
    if (guest === 'an idle guest') await loop.stop();
    const uri = `nbd+unix:///?socket=${tmp('peer')}`;
    const told = JSON.parse(await quiesceOk(['mirror', '--daemon', lab.monitor, 'source', uri, '--forecast', '--json'])) as Record<string, number | null>;
    expect(told['copy-rate']! / TARGET_RATE).toBeGreaterThan(0.3);
    expect(told['copy-rate']! / TARGET_RATE).toBeLessThan(2);
    const began = await lab.mirror({ 'x-quiesce-copy-mode': 'auto' });
    const took = await lab.ready(began, 2 * COPY_MS + 15_000);
    expect(took).not.toBeNull();
    // how much the guest writes meanwhile is up to the machine's other work
    expect(took! / told['auto-ms']!).toBeGreaterThan(0.2);
    expect(took! / told['auto-ms']!).toBeLessThan(4);
    if (guest === 'an idle guest') {
      expect(took! / told['background-ms']!).toBeLessThan(4);
      return;
    }
    // never in the background, as mirror-converge.test.ts finds, unless the machine leaves the guest nearly nothing
    expect(told['background-ms'] === null).toBe(told['dirty-rate']! >= told['copy-rate']!);
    await loop.stop();
  }, 120_000);

  test('a node as the target cannot be measured without writing to it', async () => {
    const lab = await ConvergeLab.start(tmp, MiB, [{ driver: 'null-co', 'node-name': 'target', size: MiB }]);
    await expectRefused(['mirror', '--daemon', lab.monitor, 'source', 'target', '--forecast'], /node 'target' .* without writing to it/);
    expect(await quiesceOk(['mirror', '--daemon', lab.monitor, 'source', 'target', '--forecast', '--speed', '1M'])).toContain('the target takes 1 MiB/s');
  });
});

test('QMP takes no wrong values', async () => {
  const lab = await ConvergeLab.start(tmp, MiB, [{ driver: 'null-co', 'node-name': 'target', size: MiB }]);
  for (const [more, message] of [
    [{ 'x-quiesce-deadline': 0 }, "Parameter 'deadline' expects a value of 1 or more"],
    [{ 'x-quiesce-max-guest-latency': 9 }, "Parameter 'max-guest-latency' expects a value of 10 or more"],
    [{ 'x-quiesce-deadline': -1 }, "Parameter 'x-quiesce-deadline' expects uint32_t"],
    [{ 'x-quiesce-throttle-below': 'x' }, "Parameter 'x-quiesce-throttle-below' expects uint64"],
    [{ 'copy-mode': 'background' }, "'copy-mode' and 'x-quiesce-copy-mode' are mutually exclusive"],
  ] as const) await expect(lab.mirror({ 'x-quiesce-copy-mode': 'auto', ...more })).rejects.toThrow(message);
  await lab.mirror({ 'x-quiesce-copy-mode': 'auto', 'x-quiesce-deadline': 1, 'x-quiesce-max-guest-latency': 10, 'x-quiesce-throttle-below': 0, 'x-quiesce-min-guest-rate': 0 });
  await waitFor('ready', async () => (await lab.job()).ready);
});
