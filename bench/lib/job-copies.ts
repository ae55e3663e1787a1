/** Whole copies by jobs, of a disk that nobody uses: in memory, through the page cache of a disk, and past it. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { runOk } from '../../test/support/run.js';
import { Comparison } from './comparison.js';
import { Daemon, PEERS, type Blockdev, type Peer } from './job-peers.js';

const MB = 1e6;

/** Where the files are and how they are opened. */
export interface Place {
  readonly name: string;
  readonly directory: string;
  readonly bytes: number;
  readonly direct: boolean;
  readonly memory: boolean;
}

/** An image of the place as a node. */
export function image(place: Place, name: string, more: Blockdev = {}): Blockdev {
  const cache = { cache: { direct: place.direct } };
  return { driver: 'qcow2', 'node-name': name, ...cache, file: { driver: 'file', filename: join(place.directory, name), ...cache }, ...more };
}

export function empty(place: Place, name: string, bytes: number, backing: readonly string[] = []): Promise<string> {
  return runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, join(place.directory, name), String(bytes)]);
}

/** An image full of data that nobody can take for zeros. */
export async function filled(place: Place, name: string, bytes: number): Promise<void> {
  const to = join(place.directory, name);
  await runOk('bash', ['-c', 'head -c "$1" /dev/urandom > "$0.raw" && qemu-img convert -q -t none -S 0 -f raw -O qcow2 "$0.raw" "$0"; ended=$?; rm -f "$0.raw"; exit $ended',
    to, String(bytes)], { timeoutMs: 300_000 });
}

interface Job {
  readonly name: string;
  /** Makes the files of one turn, around a `source` that is there. */
  prepare(place: Place): Promise<void>;
  nodes(place: Place): readonly Blockdev[];
  /** What the job writes to. */
  readonly written: string;
  readonly command: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly event: string;
}

export const COPY = { 'job-id': 'job', device: 'source', target: 'target', sync: 'full' };

const copying = { prepare: async (place: Place) => { await empty(place, 'target', place.bytes); }, nodes: (place: Place) => [image(place, 'source'), image(place, 'target')], written: 'target', args: COPY };

const JOBS: readonly Job[] = [
  { ...copying, name: 'mirror of an idle disk', command: 'blockdev-mirror', event: 'BLOCK_JOB_READY' },
  { ...copying, name: 'backup', command: 'blockdev-backup', event: 'BLOCK_JOB_COMPLETED' },
  {
    name: 'commit of an intermediate image', written: 'base',
    prepare: async (place) => {
      await empty(place, 'base', place.bytes);
      await layOn(place, 'source', 'base');
      await empty(place, 'top', place.bytes, ['-F', 'qcow2', '-b', join(place.directory, 'source')]);
    },
    nodes: (place) => [image(place, 'base'), image(place, 'source', { backing: 'base' }), image(place, 'top', { backing: 'source' })],
    command: 'block-commit', args: { 'job-id': 'job', device: 'top', 'top-node': 'source', 'base-node': 'base' }, event: 'BLOCK_JOB_COMPLETED',
  },
  {
    name: 'stream', written: 'top',
    prepare: async (place) => {
      await layOn(place, 'source', null);
      await empty(place, 'top', place.bytes, ['-F', 'qcow2', '-b', join(place.directory, 'source')]);
    },
    nodes: (place) => [image(place, 'source', { backing: null }), image(place, 'top', { backing: 'source' })],
    command: 'block-stream', args: { 'job-id': 'job', device: 'top' }, event: 'BLOCK_JOB_COMPLETED',
  },
];

function layOn(place: Place, overlay: string, base: string | null): Promise<string> {
  return runOk('qemu-img', ['rebase', '-q', '-u', '-f', 'qcow2', ...base === null ? [] : ['-F', 'qcow2'], '-b', base === null ? '' : join(place.directory, base), join(place.directory, overlay)]);
}

/** Only the jobs whose titles are wanted. */
export async function measureCopies(place: Place, rounds: number, wanted: (title: string) => boolean, told: (comparison: Comparison) => void): Promise<void> {
  const jobs = JOBS.map((job) => ({ job, title: `${job.name}, ${place.name}` })).filter(({ title }) => wanted(title));
  if (jobs.length === 0) return;
  await filled(place, 'source', place.bytes);
  for (const { job, title } of jobs) {
    const comparison = new Comparison({ title, unit: 'MB/s', peer: 'qemu-storage-daemon', bound: 1 });
    for (let round = 0; round < rounds; round++) {
      for (const peer of round % 2 === 0 ? PEERS : PEERS.toReversed()) {
        const seconds = await turn(place, job, peer);
        (peer.ours ? comparison.ours : comparison.theirs).push(place.bytes / seconds / MB);
      }
    }
    told(comparison);
  }
}

/**
 * One copy by a fresh daemon, until what was copied is on the disk: a job may end with its data in the page cache, and another
 * flush it before it says so.
 */
async function turn(place: Place, job: Job, peer: Peer): Promise<number> {
  await job.prepare(place);
  await settle(place);
  const daemon = await Daemon.start(peer, place.directory, job.nodes(place));
  try {
    const seconds = await daemon.timed(job.command, job.args, job.event);
    if (seconds === null) throw new Error(`${job.name}: ${peer.name} does not end`);
    const started = performance.now();
    if (!place.memory) await runOk('sync', ['-d', join(place.directory, job.written)], { timeoutMs: 300_000 });
    return seconds + (place.memory ? 0 : (performance.now() - started) / 1000);
  } finally {
    await daemon.stop();
    // memory holds two images at most
    rmSync(join(place.directory, job.written), { force: true });
  }
}

/** What was written before reaches the disk before the next run. */
async function settle(place: Place): Promise<void> {
  if (!place.memory) await runOk('sync', ['-f', place.directory], { timeoutMs: 300_000 });
}
