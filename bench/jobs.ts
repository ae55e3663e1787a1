/**
 * Block jobs of ours against those of qemu-storage-daemon, driven by the same QMP over equal files, in turns.
 *
 *   npm run bench -- jobs [--rounds N] [--size MiB] [--dir DIRECTORY] [--only TEXT]... [--json FILE] [--check]
 *
 * Files are in memory (--dir /dev/shm), which takes the disk out of the comparison. `--only` keeps the parts whose title
 * contains the text (several: any of them). The best of the rounds counts. `--check` fails if a target is missed.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { repository, runOk } from '../test/support/run.js';
import { Daemon, guest, OURS, QEMU, type GuestReport, type Peer } from './lib/job-peers.js';
import { met, Series, type Target } from './lib/series.js';

const MiB = 1024 * 1024;
const PEERS: readonly Peer[] = [OURS, QEMU];

interface Setup {
  readonly directory: string;
  readonly bytes: number;
  readonly rounds: number;
}

interface Part {
  readonly title: string;
  run(setup: Setup): Promise<Target[]>;
}

type Blockdev = Readonly<Record<string, unknown>>;

const path = (setup: Setup, name: string): string => join(setup.directory, name);
const image = (setup: Setup, name: string, nodeName: string, more: Blockdev = {}): Blockdev => (
  { driver: 'qcow2', 'node-name': nodeName, file: { driver: 'file', filename: path(setup, name) }, ...more });

async function filled(setup: Setup, name: string, bytes: number): Promise<void> {
  const raw = path(setup, 'content.raw');
  await runOk('bash', ['-c', 'head -c "$1" /dev/urandom > "$0"', raw, String(bytes)], { timeoutMs: 120_000 });
  await runOk('qemu-img', ['convert', '-q', '-S', '0', '-f', 'raw', '-O', 'qcow2', raw, path(setup, name)], { timeoutMs: 120_000 });
  rmSync(raw);
}

const empty = (setup: Setup, name: string, bytes: number, backing: readonly string[] = []): Promise<string> =>
  runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path(setup, name), String(bytes)]);

/** One daemon per turn; its job's seconds, or null where it never came to the event. */
async function turn(setup: Setup, peer: Peer, nodes: readonly Blockdev[], work: (daemon: Daemon) => Promise<number | null>): Promise<number | null> {
  const daemon = await Daemon.start(peer, setup.directory, nodes);
  try {
    return await work(daemon);
  } finally {
    await daemon.stop();
  }
}

/** Whole copies by a job, in bytes per second: `prepare` makes the files of a turn. */
async function race(setup: Setup, what: string, bytes: number, prepare: () => Promise<void>, nodes: () => readonly Blockdev[], work: (daemon: Daemon) => Promise<number | null>): Promise<Target[]> {
  const series = PEERS.map((peer) => new Series(peer.name));
  for (let round = 0; round < setup.rounds; round++) {
    for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
      await prepare();
      const seconds = await turn(setup, PEERS[index]!, nodes(), work);
      if (seconds === null) throw new Error(`${what}: ${PEERS[index]!.name} does not end`);
      series[index]!.add(seconds, bytes);
    }
  }
  console.log(`${what}: ${series.map(({ name, best, median }) => `${name} ${(best / 1e6).toFixed(0)} MB/s (median ${(median / 1e6).toFixed(0)})`).join(', ')}`);
  return [{ what, value: series[0]!.best / series[1]!.best, bound: 1, atMost: false, unit: 'x' }];
}

const MIRROR = { 'job-id': 'job', device: 'source', target: 'target', sync: 'full' };

const idleMirror: Part = {
  title: 'mirror of an idle disk',
  run: async (setup) => {
    await filled(setup, 'source', setup.bytes);
    const targets = await race(setup, 'mirror of an idle disk', setup.bytes, async () => { await empty(setup, 'target', setup.bytes); },
      () => [image(setup, 'source', 'source'), image(setup, 'target', 'target')], (daemon) => daemon.timed('blockdev-mirror', MIRROR, 'BLOCK_JOB_READY'));
    return targets;
  },
};

/** Nodes with a throttled target: the group must be there first. */
async function withSlowTarget<T>(setup: Setup, peer: Peer, bytesPerSecond: number, work: (daemon: Daemon) => Promise<T>): Promise<T> {
  const daemon = await Daemon.start(peer, setup.directory, [image(setup, 'source', 'source'), image(setup, 'target', 'fast')]);
  try {
    await daemon.qmp.execute('object-add', { 'qom-type': 'throttle-group', id: 'slow', limits: { 'bps-total': bytesPerSecond } });
    await daemon.qmp.execute('blockdev-add', { driver: 'throttle', 'node-name': 'target', 'throttle-group': 'slow', file: 'fast' });
    await daemon.export('source');
    return await work(daemon);
  } finally {
    await daemon.stop();
  }
}

const SLOW = 20 * MiB;
const BUSY = 256 * MiB;

/** The guest makes 64 KiB dirty with each write of 4 KiB: far more per second than the target takes. */
const busyMirror: Part = {
  title: 'mirror under writes',
  run: async (setup) => {
    const targets: Target[] = [];
    await filled(setup, 'source', BUSY);
    const ready: Record<string, number | null> = {};
    const latency: Record<string, GuestReport> = {};
    const limitMs = BUSY / SLOW * 2000 + 15_000;
    const modes: [string, Peer, Blockdev][] = [
      ['ours, background', OURS, { 'copy-mode': 'background' }], ['QEMU, background', QEMU, { 'copy-mode': 'background' }],
      ['ours, write-blocking', OURS, { 'copy-mode': 'write-blocking' }], ['QEMU, write-blocking', QEMU, { 'copy-mode': 'write-blocking' }],
      ['ours, auto', OURS, { 'x-quiesce-copy-mode': 'auto' }],
    ];
    for (const [name, peer, mode] of modes) {
      await empty(setup, 'target', BUSY);
      await withSlowTarget(setup, peer, SLOW, async (daemon) => {
        const load = guest(daemon.uri, { rw: 'randwrite', iops: 1000, seconds: Math.ceil(limitMs / 1000), bytes: BUSY, depth: 4 });
        await sleep(300);
        ready[name] = await daemon.timed('blockdev-mirror', { ...MIRROR, ...mode }, 'BLOCK_JOB_READY', limitMs);
        latency[name] = await load;
      });
      const { iops, p50Ms, p99Ms, maxMs } = latency[name]!;
      console.log(`${name.padEnd(24)} ready ${ready[name] === null ? 'never' : `${ready[name]!.toFixed(1)} s`}; guest ${iops.toFixed(0)} IOPS, p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms, max ${maxMs.toFixed(0)} ms`);
    }
    const seconds = (name: string): number => ready[name] ?? limitMs / 1000;
    targets.push({ what: 'write-blocking mirror under writes: time to READY', value: seconds('ours, write-blocking') / seconds('QEMU, write-blocking'), bound: 1, atMost: true, unit: 'x' });
    targets.push({ what: 'auto mirror under writes: time to READY against background in QEMU', value: seconds('ours, auto') / seconds('QEMU, background'), bound: 1, atMost: true, unit: 'x' });
    targets.push({ what: 'auto mirror under writes is READY', value: ready['ours, auto'] === null ? 0 : 1, bound: 1, atMost: false, unit: '' });
    targets.push({ what: 'write-blocking: p99 of guest writes', value: latency['ours, write-blocking']!.p99Ms / latency['QEMU, write-blocking']!.p99Ms, bound: 1.2, atMost: true, unit: 'x' });
    return targets;
  },
};

const interactive: Part = {
  title: 'reads during a mirror',
  run: async (setup) => {
    await filled(setup, 'source', setup.bytes);
    const best = [Infinity, Infinity];
    for (let round = 0; round < setup.rounds; round++) {
      for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
        await empty(setup, 'target', setup.bytes);
        await turn(setup, PEERS[index]!, [image(setup, 'source', 'source'), image(setup, 'target', 'target')], async (daemon) => {
          await daemon.export('source');
          // slow enough that it runs as long as the guest reads
          const mirror = daemon.timed('blockdev-mirror', { ...MIRROR, speed: Math.floor(setup.bytes / 6) }, 'BLOCK_JOB_READY', 60_000);
          const { p99Ms } = await guest(daemon.uri, { rw: 'randread', iops: 500, seconds: 4, bytes: setup.bytes });
          best[index] = Math.min(best[index]!, p99Ms);
          return mirror;
        });
      }
    }
    console.log(`4K reads during a mirror, p99: ${PEERS.map(({ name }, index) => `${name} ${best[index]!.toFixed(2)} ms`).join(', ')}`);
    return [{ what: 'reads during a mirror: p99', value: best[0]! / best[1]!, bound: 1, atMost: true, unit: 'x' }];
  },
};

/** An overlay full of data over an empty base. */
async function overlayOn(setup: Setup, overlay: string, base: string): Promise<void> {
  await empty(setup, base, setup.bytes);
  await runOk('qemu-img', ['rebase', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', path(setup, base), path(setup, overlay)]);
}

const commit: Part = {
  title: 'commit',
  run: async (setup) => {
    await filled(setup, 'mid', setup.bytes);
    const chain = [image(setup, 'base', 'base'), image(setup, 'mid', 'mid', { backing: 'base' }), image(setup, 'top', 'top', { backing: 'mid' })];
    return race(setup, 'commit of an intermediate image', setup.bytes, async () => {
      await overlayOn(setup, 'mid', 'base');
      await empty(setup, 'top', setup.bytes, ['-F', 'qcow2', '-b', path(setup, 'mid')]);
    }, () => chain, (daemon) => daemon.timed('block-commit', { 'job-id': 'job', device: 'top', 'top-node': 'mid', 'base-node': 'base' }, 'BLOCK_JOB_COMPLETED'));
  },
};

const stream: Part = {
  title: 'stream',
  run: async (setup) => {
    await filled(setup, 'base', setup.bytes);
    return race(setup, 'stream', setup.bytes, async () => { await empty(setup, 'top', setup.bytes, ['-F', 'qcow2', '-b', path(setup, 'base')]); },
      () => [image(setup, 'base', 'base'), image(setup, 'top', 'top', { backing: 'base' })],
      (daemon) => daemon.timed('block-stream', { 'job-id': 'job', device: 'top' }, 'BLOCK_JOB_COMPLETED'));
  },
};

const backup: Part = {
  title: 'backup',
  run: async (setup) => {
    await filled(setup, 'source', setup.bytes);
    return race(setup, 'backup', setup.bytes, async () => { await empty(setup, 'target', setup.bytes); },
      () => [image(setup, 'source', 'source'), image(setup, 'target', 'target')],
      (daemon) => daemon.timed('blockdev-backup', MIRROR, 'BLOCK_JOB_COMPLETED'));
  },
};

/** A target that takes nearly nothing, for a while: memory must not grow. */
const stalled: Part = {
  title: 'memory with a stalled target',
  run: async (setup) => {
    await filled(setup, 'source', BUSY);
    await empty(setup, 'target', BUSY);
    let first = 0;
    let peak = 0;
    await withSlowTarget(setup, OURS, 64 * 1024, async (daemon) => {
      const load = guest(daemon.uri, { rw: 'randwrite', iops: 2000, seconds: 30, bytes: BUSY, depth: 8 });
      await daemon.qmp.execute('blockdev-mirror', MIRROR);
      for (let second = 0; second < 30; second++) {
        await sleep(1000);
        if (second === 5) first = daemon.rss();
        peak = Math.max(peak, daemon.rss());
      }
      await load;
    });
    console.log(`memory with a stalled target: ${(first / MiB).toFixed(0)} MiB after 5 s, at most ${(peak / MiB).toFixed(0)} MiB in 30 s`);
    return [{ what: 'memory with a stalled target: growth', value: (peak - first) / MiB, bound: 24, atMost: true, unit: ' MiB' }];
  },
};

const PARTS: readonly Part[] = [idleMirror, busyMirror, interactive, commit, stream, backup, stalled];

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    rounds: { type: 'string', default: '3' }, size: { type: 'string', default: '4096' }, dir: { type: 'string', default: '/dev/shm' },
    only: { type: 'string', multiple: true, default: [] }, check: { type: 'boolean', default: false },
    json: { type: 'string', default: join(repository, 'bench', 'results', 'jobs.json') },
  } });
  const all: Target[] = [];
  for (const part of PARTS) {
    if (values.only.length > 0 && !values.only.some((text) => part.title.includes(text))) continue;
    const directory = mkdtempSync(join(values.dir, 'quiesce-jobs-'));
    try {
      all.push(...await part.run({ directory, bytes: Number(values.size) * MiB, rounds: Number(values.rounds) }));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }
  console.log('');
  for (const target of all) console.log(`${target.what.padEnd(72)}${target.value.toFixed(2)}${target.unit} ${target.atMost ? '<=' : '>='} ${target.bound} ${met(target) ? 'met' : 'MISSED'}`);
  mkdirSync(dirname(values.json), { recursive: true });
  writeFileSync(values.json, `${JSON.stringify({ node: process.version, targets: all.map((target) => ({ ...target, met: met(target) })) }, null, 2)}\n`);
  if (values.check && !all.every(met)) process.exitCode = 1;
}

await main();
