/**
 * Our NBD server against qemu-nbd, under fio's nbd engine, in one run: both serve equal images at the same time and take
 * turns. And `quiesce nbd copy` against nbdcopy and qemu-img convert, between the same two sockets.
 *
 *   npm run bench -- nbd [--rounds N] [--seconds S] [--dir DIRECTORY] [--only TEXT]... [--server PROGRAM] [--json FILE] [--check]
 *
 * `--only` keeps the measurements whose title contains the text (several: all of them), as `qcow2, none` or `randread`. The
 * best of the rounds counts, the median tells how noisy they were. `--check` fails if a target is missed.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { launcher, repository, runOk } from '../test/support/run.js';
import { runLoad, startServer, timedCopy, type Load, type Server } from './lib/nbd-peers.js';
import { met, Series, type Target } from './lib/series.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const IMAGE = 256 * MiB;
/** Small enough for the page cache, large enough that a second does not fill it. */
const SPARSE = 4096 * MiB;
const COPIED = 1024 * MiB;
const MEMORY = '/dev/shm';

const LOADS: readonly Load[] = (['randread', 'randwrite', 'randrw'] as const).flatMap((rw) => [32, 1].map((depth): Load => (
  { name: `4K ${rw === 'randrw' ? '70/30 mix' : rw}, depth ${depth}`, rw, blockBytes: 4 * KiB, depth })))
  .concat((['read', 'write'] as const).map((rw) => ({ name: `1M ${rw}, depth 4`, rw, blockBytes: MiB, depth: 4 })));
const ALLOCATING = LOADS.filter(({ rw, depth }) => (rw === 'randwrite' && depth === 32) || rw === 'write');

/** Where the images are and how they are opened. */
interface Place {
  readonly name: string;
  readonly cache: 'writeback' | 'none';
  readonly memory: boolean;
}

const PLACES: readonly Place[] = [
  { name: 'writeback', cache: 'writeback', memory: false }, { name: 'none', cache: 'none', memory: false },
  { name: 'none, tmpfs', cache: 'none', memory: true },
];

interface Measurement {
  readonly title: string;
  readonly ours: Series;
  readonly peers: readonly Series[];
  readonly bound: number;
}

interface Setup {
  readonly directory: string;
  readonly memory: string;
  readonly server: string;
  readonly rounds: number;
  readonly seconds: number;
  readonly wanted: (title: string) => boolean;
}

function boundOf({ blockBytes, depth }: Load, { cache, memory }: Place): number {
  if (blockBytes !== 4 * KiB || depth === 1) return 1;
  return cache === 'none' && !memory ? 0.9 : 1.2;
}

function measurement(title: string, load: Load, place: Place): Measurement {
  return { title, ours: new Series('quiesce'), peers: [new Series('qemu-nbd')], bound: boundOf(load, place) };
}

interface Case extends Measurement {
  readonly load: Load;
  readonly place: Place;
  readonly connections: number;
}

function cases(setup: Setup, format: string, place: Place, loads: readonly Load[], state: string): Case[] {
  return [1, 4].flatMap((connections) => loads.map((load): Case => {
    const title = `${format}, ${place.name}${state}: ${load.name}, ${connections} connection${connections === 1 ? '' : 's'}`;
    return { ...measurement(title, load, place), load, place, connections };
  })).filter(({ title }) => setup.wanted(title));
}

/** Both servers on images of one kind. */
async function withServers<T>(setup: Setup, format: string, place: Place, bytes: number, filled: boolean, work: (ours: Server, theirs: Server) => Promise<T>): Promise<T> {
  const started: Server[] = [];
  const images: string[] = [];
  try {
    for (const program of [setup.server, 'qemu-nbd']) {
      const image = join(place.memory ? setup.memory : setup.directory, `image-${started.length}.${format}`);
      images.push(image);
      rmSync(image, { force: true });
      await makeImage(setup, image, format, bytes, filled);
      started.push(await startServer(program, { image, format, cache: place.cache, socket: join(setup.directory, `nbd-${started.length}`) }));
    }
    return await work(started[0]!, started[1]!);
  } finally {
    for (const server of started) await server.stop();
    for (const image of images) rmSync(image, { force: true });
  }
}

async function makeImage(setup: Setup, image: string, format: string, bytes: number, filled: boolean): Promise<void> {
  // past the page cache: its pages would make every O_DIRECT write over them wait
  if (filled) await runOk('qemu-img', ['convert', '-q', '-t', 'none', '-S', '0', '-f', 'raw', '-O', format, await content(setup, bytes), image]);
  else await runOk('qemu-img', ['create', '-q', '-f', format, image, String(bytes)]);
}

/** What filled images hold: data that no server can take for zeros. */
async function content(setup: Setup, bytes: number): Promise<string> {
  const path = join(setup.memory, `content-${bytes / MiB}`);
  await runOk('bash', ['-c', 'test -f "$0" || head -c "$1" /dev/urandom > "$0"', path, String(bytes)]);
  return path;
}

/** What was written reaches the disk between the runs, not during the next one. */
async function settle(setup: Setup, place: Place): Promise<void> {
  if (!place.memory) await runOk('sync', ['-f', setup.directory]);
}

/** The images are filled, and all loads use the same ones. */
async function onFilled(setup: Setup, format: string, place: Place): Promise<Measurement[]> {
  const all = cases(setup, format, place, LOADS, '');
  if (all.length === 0) return [];
  await withServers(setup, format, place, IMAGE, true, async (ours, theirs) => {
    for (let round = 0; round < setup.rounds; round++) for (const one of all) await turn(setup, one, ours, theirs, IMAGE, round);
  });
  return all;
}

/** Every write takes a cluster that the image did not have: each turn has fresh images. */
async function onSparse(setup: Setup, format: string, place: Place): Promise<Measurement[]> {
  const all = cases(setup, format, place, ALLOCATING, ', allocating');
  for (let round = 0; round < setup.rounds; round++) {
    for (const one of all) {
      await withServers(setup, format, place, SPARSE, false, (ours, theirs) => turn(setup, one, ours, theirs, SPARSE, round));
    }
  }
  return all;
}

/** One run of each; who is first changes with the round. */
async function turn(setup: Setup, one: Case, ours: Server, theirs: Server, bytes: number, round: number): Promise<void> {
  const runs: [Series, Server][] = [[one.ours, ours], [one.peers[0]!, theirs]];
  if (round % 2 === 1) runs.reverse();
  for (const [series, server] of runs) {
    const run = await runLoad(server.uri, one.load, bytes, one.connections, setup.seconds);
    series.add(run.seconds, run.bytes);
    await settle(setup, one.place);
  }
}

/** From one qemu-nbd to another: every program talks to the same two sockets. */
async function copies(setup: Setup): Promise<Measurement[]> {
  const title = 'copy: 1 GiB between two sockets';
  if (!setup.wanted(title)) return [];
  const one = { title, ours: new Series('quiesce nbd copy'), peers: [new Series('nbdcopy'), new Series('qemu-img convert')], bound: 1 };
  const target = join(setup.memory, 'copy');
  await runOk('truncate', ['-s', String(COPIED), target]);
  const serve = (image: string, name: string): Promise<Server> => startServer('qemu-nbd', { image, format: 'raw', cache: 'writeback', socket: join(setup.directory, name) });
  const from = await serve(await content(setup, COPIED), 'from');
  const to = await serve(target, 'to');
  try {
    for (let round = 0; round < setup.rounds; round++) {
      const runs: [Series, string, string[]][] = [
        [one.ours, launcher, ['nbd', 'copy']], [one.peers[0]!, 'nbdcopy', []], [one.peers[1]!, 'qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw']],
      ];
      if (round % 2 === 1) runs.reverse();
      for (const [series, program, args] of runs) series.add(await timedCopy(program, [...args, from.uri, to.uri]), COPIED);
    }
  } finally {
    for (const server of [from, to]) await server.stop();
    rmSync(target);
  }
  return [one];
}

function targetsOf({ title, ours, peers, bound }: Measurement): Target[] {
  return peers.map((peer) => ({ what: peers.length === 1 ? title : `${title}, ${peer.name}`, value: ours.best / peer.best, bound, atMost: false, unit: 'x' }));
}

function print(measurement: Measurement): void {
  const { ours, peers } = measurement;
  for (const [index, target] of targetsOf(measurement).entries()) {
    const peer = peers[index]!;
    const rates = [ours.best, ours.median, peer.best, peer.median].map((rate) => (rate / 1e6).toFixed(1).padStart(8)).join('');
    console.log(`${target.what.padEnd(72)}${rates}${`${target.value.toFixed(2)}x`.padStart(8)}  >= ${target.bound}x ${met(target) ? 'met' : 'MISSED'}`);
  }
}

function asJson(all: readonly Measurement[], setup: Setup): object {
  const rates = ({ name, best, median }: Series): object => ({ name, bestBytesPerSecond: best, medianBytesPerSecond: median });
  return {
    node: process.version, rounds: setup.rounds, seconds: setup.seconds,
    measurements: all.map(({ title, ours, peers }) => ({ title, ours: rates(ours), peers: peers.map(rates) })),
    targets: all.flatMap(targetsOf).map((target) => Object.assign(target, { met: met(target) })),
  };
}

async function measureAll(setup: Setup): Promise<Measurement[]> {
  console.log(`${'MB/s'.padEnd(72)}${['ours', 'median', 'peer', 'median'].map((name) => name.padStart(8)).join('')}${'ratio'.padStart(8)}`);
  const all: Measurement[] = [];
  const take = (measurements: readonly Measurement[]): void => {
    measurements.forEach(print);
    all.push(...measurements);
  };
  take(await copies(setup));
  for (const place of PLACES) {
    for (const format of ['raw', 'qcow2']) take(await onFilled(setup, format, place));
    take(await onSparse(setup, 'qcow2', place));
  }
  return all;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    rounds: { type: 'string', default: '3' }, seconds: { type: 'string', default: '1' }, dir: { type: 'string', default: tmpdir() },
    only: { type: 'string', multiple: true, default: [] }, server: { type: 'string', default: join(repository, 'cli', 'quiesce-nbd') },
    check: { type: 'boolean', default: false }, json: { type: 'string', default: join(repository, 'bench', 'results', 'nbd.json') },
  } });
  const directory = mkdtempSync(join(values.dir, 'quiesce-nbd-'));
  const memory = mkdtempSync(`${MEMORY}/quiesce-nbd-`);
  try {
    const setup: Setup = {
      directory, memory, server: values.server, rounds: Number(values.rounds), seconds: Number(values.seconds),
      wanted: (title) => values.only.every((text) => title.includes(text)),
    };
    const all = await measureAll(setup);
    mkdirSync(dirname(values.json), { recursive: true });
    writeFileSync(values.json, `${JSON.stringify(asJson(all, setup), null, 2)}\n`);
    if (values.check && !all.flatMap(targetsOf).every(met)) process.exitCode = 1;
  } finally {
    for (const path of [directory, memory]) rmSync(path, { recursive: true, force: true });
  }
}

await main();
