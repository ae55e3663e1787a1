/** Mirrors of a disk that a guest is using: when they are READY, and what the guest notices. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Comparison } from './comparison.js';
import { COPY, empty, filled, image, type Place } from './job-copies.js';
import { Daemon, guest, OURS, PEERS, QEMU, withStoppableServer, type Blockdev, type GuestReport, type Peer } from './job-peers.js';
import type { Target } from './series.js';

const MiB = 1024 * 1024;
const QEMU_NAME = QEMU.name;

export interface GuestSetup {
  readonly place: Place;
  readonly rounds: number;
  readonly stallSeconds: number;
  readonly told: (comparison: Comparison) => void;
  readonly target: (target: Target) => void;
  readonly note: (text: string) => void;
  /** What is told in text only belongs into the JSON too. */
  readonly detail: (title: string, data: unknown) => void;
}

export interface GuestPart {
  readonly title: string;
  run(setup: GuestSetup): Promise<void>;
}

/** Both peers, `rounds` times, who is first in turns. */
async function inTurns(rounds: number, work: (peer: Peer) => Promise<void>): Promise<void> {
  for (let round = 0; round < rounds; round++) for (const peer of round % 2 === 0 ? PEERS : PEERS.toReversed()) await work(peer);
}

async function withDaemon<T>(peer: Peer, place: Place, nodes: readonly Blockdev[], work: (daemon: Daemon) => Promise<T>): Promise<T> {
  const daemon = await Daemon.start(peer, place.directory, nodes);
  try {
    await daemon.export('source');
    return await work(daemon);
  } finally {
    await daemon.stop();
  }
}

/** Of the whole size, with a target as fast as the source: all that counts is how fast it copies. */
const busy: GuestPart = {
  title: 'mirror under 4K writes, 2000 a second',
  run: async ({ place, rounds, told }) => {
    const ready = new Comparison({ title: `${busy.title}: time to READY`, unit: 's', peer: QEMU_NAME, bound: 1 });
    const latency = new Comparison({ title: `${busy.title}, write-blocking: p99 of the writes`, unit: 'ms', peer: QEMU_NAME, bound: 1.2 });
    await filled(place, 'source', place.bytes);
    for (const mode of ['background', 'write-blocking']) {
      await inTurns(rounds, async (peer) => {
        await empty(place, 'target', place.bytes);
        await withDaemon(peer, place, [image(place, 'source'), image(place, 'target')], async (daemon) => {
          const load = guest(daemon.uri, { rw: 'randwrite', iops: 2000, seconds: 6, bytes: place.bytes, depth: 4 });
          await sleep(500);
          const seconds = await daemon.timed('blockdev-mirror', { ...COPY, 'copy-mode': mode }, 'BLOCK_JOB_READY', 60_000);
          const { p99Ms } = await load;
          if (mode === 'background') (peer.ours ? ready.ours : ready.theirs).push(seconds ?? Infinity);
          else (peer.ours ? latency.ours : latency.theirs).push(p99Ms);
        });
      });
    }
    told(ready);
    told(latency);
  },
};

const SLOW = 20 * MiB;
const SLOW_DISK = 256 * MiB;
/** What the issue gives `auto`. */
const SLOW_LIMIT_MS = SLOW_DISK / SLOW * 2000 + 15_000;

async function onSlowTarget(place: Place, peer: Peer, mode: Blockdev): Promise<{ ready: number | null; report: GuestReport }> {
  await empty(place, 'target', SLOW_DISK);
  return withDaemon(peer, place, [image(place, 'source'), image(place, 'target', { 'node-name': 'fast' })], async (daemon) => {
    await daemon.qmp.execute('object-add', { 'qom-type': 'throttle-group', id: 'slow', limits: { 'bps-total': SLOW } });
    await daemon.qmp.execute('blockdev-add', { driver: 'throttle', 'node-name': 'target', 'throttle-group': 'slow', file: 'fast' });
    const load = guest(daemon.uri, { rw: 'randwrite', iops: 1000, seconds: Math.ceil(SLOW_LIMIT_MS / 1000), bytes: SLOW_DISK, depth: 4 });
    await sleep(300);
    const ready = await daemon.timed('blockdev-mirror', { ...COPY, ...mode }, 'BLOCK_JOB_READY', SLOW_LIMIT_MS);
    return { ready, report: await load };
  });
}

/** The guest makes 64 KiB dirty with each write of 4 KiB: far more per second than the target takes. */
const slow: GuestPart = {
  title: 'mirror to a target slower than the guest',
  run: async ({ place, told, target, note }) => {
    await filled(place, 'source', SLOW_DISK);
    const modes: [name: string, peer: Peer, mode: Blockdev][] = [
      ['ours, background', OURS, { 'copy-mode': 'background' }], ['QEMU, background', QEMU, { 'copy-mode': 'background' }],
      ['ours, write-blocking', OURS, { 'copy-mode': 'write-blocking' }], ['QEMU, write-blocking', QEMU, { 'copy-mode': 'write-blocking' }],
      ['ours, auto', OURS, { 'x-quiesce-copy-mode': 'auto' }],
    ];
    const runs = new Map<string, { ready: number | null; report: GuestReport }>();
    for (const [name, peer, mode] of modes) {
      const run = await onSlowTarget(place, peer, mode);
      runs.set(name, run);
      const { ready, report: { iops, p50Ms, p99Ms, maxMs } } = run;
      note(`  ${name.padEnd(22)} ready ${ready === null ? 'never' : `after ${ready.toFixed(1)} s`}; guest ${iops.toFixed(0)} IOPS, p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms, max ${maxMs.toFixed(0)} ms`);
    }
    const of = (name: string): { ready: number | null; report: GuestReport } => runs.get(name)!;
    const blocking = new Comparison({ title: `${slow.title}, write-blocking: p99 of the writes`, unit: 'ms', peer: QEMU_NAME, bound: 1.2 });
    blocking.ours.push(of('ours, write-blocking').report.p99Ms);
    blocking.theirs.push(of('QEMU, write-blocking').report.p99Ms);
    told(blocking);
    const never = of('QEMU, background').ready ?? SLOW_LIMIT_MS / 1000;
    for (const mode of ['write-blocking', 'auto']) {
      const value = (of(`ours, ${mode}`).ready ?? Infinity) / never;
      target({ what: `${slow.title}, ${mode}: time to READY against QEMU in background`, value, bound: 1, atMost: true, unit: 'x' });
    }
  },
};

/** The mirror is slow enough that it runs as long as the guest reads. */
const interactive: GuestPart = {
  title: 'interactive 4K reads during a mirror',
  run: async ({ place, rounds, told }) => {
    await filled(place, 'source', place.bytes);
    const latency = new Comparison({ title: `${interactive.title}: p99`, unit: 'ms', peer: QEMU_NAME, bound: 1 });
    await inTurns(rounds, async (peer) => {
      await empty(place, 'target', place.bytes);
      await withDaemon(peer, place, [image(place, 'source'), image(place, 'target')], async (daemon) => {
        const mirror = daemon.timed('blockdev-mirror', { ...COPY, speed: Math.floor(place.bytes / 6) }, 'BLOCK_JOB_READY', 60_000);
        const { p99Ms } = await guest(daemon.uri, { rw: 'randread', iops: 500, seconds: 4, bytes: place.bytes });
        (peer.ours ? latency.ours : latency.theirs).push(p99Ms);
        await mirror;
      });
    });
    told(latency);
  },
};

/** Buffers and caches are as large as they get. */
const SETTLED_SECONDS = 10;
const STALLED_DISK = 128 * MiB;
const GROWTH = 16;

interface Stalled {
  readonly settled: number;
  readonly peak: number;
  /** Seconds from the start of the mirror to READY. */
  readonly ready: number | null;
}

/** A server that stands still from before the mirror begins, while the guest writes on. */
async function onStalledTarget(place: Place, stallSeconds: number, mode: Blockdev): Promise<Stalled> {
  await filled(place, 'source', STALLED_DISK);
  await empty(place, 'target-file', STALLED_DISK);
  let [settled, peak] = [0, 0];
  let ready: number | null = null;
  await withStoppableServer(join(place.directory, 'target-file'), place.directory, async (server) => {
    const target = { driver: 'nbd', 'node-name': 'target', server: { type: 'unix', path: server.socket } };
    await withDaemon(OURS, place, [image(place, 'source'), target], async (daemon) => {
      const load = guest(daemon.uri, { rw: 'randwrite', iops: 1000, seconds: stallSeconds, bytes: STALLED_DISK, depth: 8 });
      server.stop();
      const mirror = daemon.timed('blockdev-mirror', { ...COPY, ...mode }, 'BLOCK_JOB_READY', (stallSeconds + 60) * 1000);
      for (let second = 0; second < stallSeconds; second++) {
        await sleep(1000);
        const rss = daemon.rss();
        if (second === SETTLED_SECONDS) settled = rss;
        peak = Math.max(peak, rss);
      }
      await load;
      server.goOn();
      ready = await mirror;
    });
  });
  return { settled, peak, ready };
}

/** Memory must not grow, and the mirror ends when the server is back. The modes run side by side: it takes minutes. */
const stalled: GuestPart = {
  title: 'memory while the target stands still',
  run: async ({ place, stallSeconds, target, note }) => {
    const modes: readonly (readonly [name: string, mode: Blockdev])[] = [['background', { 'copy-mode': 'background' }], ['auto', { 'x-quiesce-copy-mode': 'auto' }]];
    const runs = await Promise.all(modes.map(async ([name, mode]) => {
      const directory = join(place.directory, name);
      await mkdir(directory);
      return onStalledTarget({ ...place, directory }, stallSeconds, mode);
    }));
    for (const [index, { settled, peak, ready }] of runs.entries()) {
      const [name] = modes[index]!;
      note(`  ${name}: ${(settled / MiB).toFixed(0)} MiB after ${SETTLED_SECONDS} s, at most ${(peak / MiB).toFixed(0)} MiB in ${stallSeconds} s; ready ${ready === null ? 'never' : `after ${ready.toFixed(1)} s`}`);
      target({ what: `${stalled.title}, ${name}: growth`, value: (peak - settled) / MiB, bound: GROWTH, atMost: true, unit: ' MiB' });
      target({ what: `${stalled.title}, ${name}: READY when it goes on`, value: ready === null ? 0 : 1, bound: 1, atMost: false, unit: '' });
    }
  },
};

export const GUEST_PARTS: readonly GuestPart[] = [busy, interactive, slow, stalled];
