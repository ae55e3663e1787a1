/**
 * The main job against QEMU, against the naive path and against the limit of the disk: saving and loading RAM state that
 * does not compress, with O_DIRECT (`none`) and buffered (`writeback`), in clusters of 64 KiB and 1 MiB. All peers take
 * turns on the same file system.
 *
 *   npm run bench -- snapshot [--size MiB] [--rounds N] [--dir DIRECTORY] [--cache none|writeback] [--cluster 64K|1M] [--check]
 *
 * Against QEMU ours is the whole job in a Node that runs already (reading the state from memory included), as QEMU's is the
 * command `savevm` or `loadvm` in a machine that runs already; the command line, with Node's start-up, is shown beside it.
 * Against fio, which has its data in its buffers, it is the engine alone (see lib/engine). `--check` fails if a target is
 * missed.
 */
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createImage, parseSize, type CacheModeName } from '../src/index.js';
import { repository, runOk } from '../test/support/run.js';
import { ENGINE_FLAG, engineMain, timedEngine } from './lib/engine.js';
import { timedNaive } from '../test/support/naive-state.js';
import { dropCache, timedCli, timedFio } from './lib/peers.js';
import { makeStream, RamMachine } from './lib/ram-machine.js';
import { met, Series, type Target } from './lib/series.js';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const DISK = 8 * GiB;
const NAIVE_BYTES: Readonly<Record<string, number>> = { none: 8 * MiB, writeback: 64 * MiB };
const MAX_RSS = 200 * MiB;
/** Ours and fio are short runs, and so the most at the mercy of noise: each takes several turns in a round. */
const SHORT_TURNS = 3;
const OURS = 'ours.qcow2';
const JOB = 'job.qcow2';
const ENGINE = 'engine.qcow2';
/** This bundle, to run parts of it in a process of their own. */
const script = fileURLToPath(import.meta.url);

interface Setup {
  readonly directory: string;
  readonly stream: string;
  readonly fillMiB: number;
  readonly bytes: number;
  readonly rounds: number;
}

interface Config {
  readonly cache: CacheModeName;
  readonly cluster: string;
}

/** The series of one configuration; MB/s of each are comparable. */
class Results {
  readonly config: Config;
  readonly create = { ours: new Series('ours, command line'), job: new Series('ours'), engine: new Series('ours, engine alone'), fio: new Series('fio, depth 8'), qemu: new Series('QEMU savevm'), live: new Series('ours, live machine'), naive: new Series('naive') };
  readonly load = { ours: new Series('ours, command line'), job: new Series('ours'), engine: new Series('ours, engine alone'), fio: new Series('fio, depth 1'), qemu: new Series('QEMU loadvm'), naive: new Series('naive') };
  peakRss = 0;

  constructor(config: Config) {
    this.config = config;
  }

  get title(): string { return `${this.config.cache}, ${this.config.cluster} clusters`; }

  targets(): Target[] {
    const { create, load, config, title } = this;
    const ratio = (what: string, ours: Series, theirs: Series, bound: number): Target => (
      { what: `${title}: ${what}`, value: ours.best / theirs.best, bound, atMost: false, unit: 'x' });
    const rss: Target = { what: `${title}: peak RSS`, value: this.peakRss / MiB, bound: MAX_RSS / MiB, atMost: true, unit: ' MiB' };
    if (config.cache !== 'none') return [rss];
    return [
      ratio('create / savevm', create.job, create.qemu, 5), ratio('create (engine) / fio', create.engine, create.fio, 0.8),
      ratio('live machine / savevm', create.live, create.qemu, 2),
      ratio('load / loadvm', load.job, load.qemu, 4), ratio('load (engine) / fio', load.engine, load.fio, 0.85), rss,
    ];
  }
}

/** One round: everyone creates, then everyone loads. */
async function round(setup: Setup, machine: RamMachine, qemuImage: string, results: Results, index: number): Promise<void> {
  const { directory, bytes } = setup;
  const { cache } = results.config;
  const limit = join(directory, 'limit.bin');
  const direct = cache === 'none';
  for (let turn = 0; turn < SHORT_TURNS; turn++) {
    results.create.engine.add(await timedEngine(script, 'create', await freshImage(setup, results, ENGINE), cache, bytes), bytes);
    results.create.fio.add(await timedFio(limit, bytes, 'write', direct), bytes);
  }
  results.create.ours.add(await createByUs(setup, results), bytes);
  results.create.job.add(await timedEngine(script, 'create-job', await freshImage(setup, results, JOB), cache, setup.stream), bytes);
  results.create.qemu.add(await machine.timed(`savevm round-${index}`), bytes);

  for (let turn = 0; turn < SHORT_TURNS; turn++) {
    await dropCache(join(directory, ENGINE));
    results.load.engine.add(await timedEngine(script, 'load', join(directory, ENGINE), cache, bytes), bytes);
    await dropCache(limit);
    results.load.fio.add(await timedFio(limit, bytes, 'read', direct), bytes);
  }
  await dropCache(join(directory, OURS));
  results.load.ours.add(await loadByUs(setup, results), bytes);
  await dropCache(join(directory, JOB));
  results.load.job.add(await timedEngine(script, 'load-job', join(directory, JOB), cache, '/dev/null'), bytes);
  await dropCache(qemuImage);
  results.load.qemu.add(await machine.timed(`loadvm round-${index}`), bytes);
  await machine.timed(`delvm round-${index}`);

  if (direct) results.create.live.add(await createFromLive(setup, results, machine), bytes);
  if (index === 0) await naive(setup, results);
}

async function freshImage(setup: Setup, results: Results, name: string): Promise<string> {
  const path = join(setup.directory, name);
  rmSync(path, { force: true });
  await createImage(path, { format: 'qcow2', size: DISK, clusterSize: parseSize(results.config.cluster, 'cluster size') });
  return path;
}

async function createByUs(setup: Setup, results: Results): Promise<number> {
  const image = await freshImage(setup, results, OURS);
  const { seconds, peakRss } = await timedCli(setup.directory, ['snapshot', 'create', image, 'bench', '--vm-state', setup.stream, '--cache', results.config.cache]);
  results.peakRss = Math.max(results.peakRss, peakRss);
  return seconds;
}

async function loadByUs(setup: Setup, results: Results): Promise<number> {
  const { seconds, peakRss } = await timedCli(setup.directory, ['snapshot', 'load', join(setup.directory, OURS), 'bench', '--vm-state', '/dev/null', '--cache', results.config.cache]);
  results.peakRss = Math.max(results.peakRss, peakRss);
  return seconds;
}

/** From our start to our end, with a machine that begins to send as soon as we listen. */
async function createFromLive(setup: Setup, results: Results, machine: RamMachine): Promise<number> {
  const image = await freshImage(setup, results, 'live.qcow2');
  const socket = join(setup.directory, 'ram.sock');
  const running = timedCli(setup.directory, ['snapshot', 'create', image, 'bench', '--vm-state', `unix:${socket}`, '--cache', results.config.cache]);
  const sending = untilExists(socket).then(() => machine.migrateTo(socket));
  const [{ seconds, peakRss }] = await Promise.all([running, sending]);
  results.peakRss = Math.max(results.peakRss, peakRss);
  await machine.settle();
  rmSync(image);
  return seconds;
}

async function untilExists(path: string): Promise<void> {
  for (let wait = 0; wait < 2000; wait++) {
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`'${path}' did not appear`);
}

async function naive(setup: Setup, results: Results): Promise<void> {
  const bytes = NAIVE_BYTES[results.config.cache]!;
  const { save, load } = await timedNaive(await freshImage(setup, results, 'naive.qcow2'), results.config.cache, bytes);
  results.create.naive.add(save, bytes);
  results.load.naive.add(load, bytes);
}

async function measure(setup: Setup, config: Config): Promise<Results> {
  const results = new Results(config);
  const qemuImage = join(setup.directory, 'qemu.qcow2');
  rmSync(qemuImage, { force: true });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${config.cluster}`, qemuImage, String(DISK)]);
  const machine = await RamMachine.start(setup.directory, setup.stream, setup.fillMiB, qemuImage, config.cache);
  try {
    for (let index = 0; index < setup.rounds; index++) await round(setup, machine, qemuImage, results, index);
  } finally {
    await machine.end();
  }
  return results;
}

function print(results: Results): void {
  console.log(`\n${results.title}`.padEnd(34) + 'best MB/s'.padStart(11) + 'median'.padStart(9) + '  ours'.padStart(9));
  for (const [verb, series] of [['create', results.create], ['load', results.load]] as const) {
    for (const one of Object.values(series)) {
      if (one.empty) continue;
      const ratio = one.name.startsWith('ours') ? '' : `${(series.job.best / one.best).toFixed(2)}x`;
      console.log(`${`  ${verb}: ${one.name}`.padEnd(33)}${(one.best / 1e6).toFixed(0).padStart(11)}${(one.median / 1e6).toFixed(0).padStart(9)}${ratio.padStart(9)}`);
    }
  }
}

function printTargets(targets: readonly Target[]): void {
  console.log('\ntargets');
  for (const target of targets) {
    const bound = `${target.atMost ? '<=' : '>='} ${target.bound}${target.unit}`;
    console.log(`  ${target.what.padEnd(48)}${`${target.value.toFixed(2)}${target.unit}`.padStart(12)}  ${bound.padEnd(12)} ${met(target) ? 'met' : 'MISSED'}`);
  }
}

function asJson(all: readonly Results[], setup: Setup, targets: readonly Target[]): object {
  const rates = (series: Readonly<Record<string, Series>>): object => Object.fromEntries(Object.entries(series)
    .filter(([, one]) => !one.empty).map(([key, one]) => [key, { bestBytesPerSecond: one.best, medianBytesPerSecond: one.median }]));
  return {
    node: process.version, bytes: setup.bytes, rounds: setup.rounds,
    configurations: all.map(({ config, create, load, peakRss }) => ({ ...config, peakRss, create: rates(create), load: rates(load) })),
    targets: targets.map((target) => ({ ...target, met: met(target) })),
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    size: { type: 'string', default: '1536' }, rounds: { type: 'string', default: '3' }, dir: { type: 'string', default: tmpdir() },
    cache: { type: 'string' }, cluster: { type: 'string' }, check: { type: 'boolean', default: false },
    json: { type: 'string', default: join(repository, 'bench', 'results', 'snapshot.json') },
  } });
  const configs = (['none', 'writeback'] as const).flatMap((cache) => ['64K', '1M'].map((cluster) => ({ cache, cluster })))
    .filter(({ cache, cluster }) => (values.cache ?? cache) === cache && (values.cluster ?? cluster) === cluster);
  const directory = mkdtempSync(join(values.dir, 'quiesce-snapshot-'));
  const memory = mkdtempSync('/dev/shm/quiesce-snapshot-');
  try {
    const fillMiB = Number(values.size);
    const stream = join(memory, 'state');
    await makeStream(directory, stream, fillMiB);
    const setup: Setup = { directory, stream, fillMiB, bytes: statSync(stream).size, rounds: Number(values.rounds) };
    const all: Results[] = [];
    for (const config of configs) {
      const results = await measure(setup, config);
      print(results);
      all.push(results);
    }
    const targets = all.flatMap((results) => results.targets());
    printTargets(targets);
    mkdirSync(dirname(values.json), { recursive: true });
    writeFileSync(values.json, `${JSON.stringify(asJson(all, setup, targets), null, 2)}\n`);
    if (values.check && !targets.every(met)) process.exitCode = 1;
  } finally {
    for (const path of [directory, memory]) rmSync(path, { recursive: true, force: true });
  }
}

await (process.argv[2] === ENGINE_FLAG ? engineMain(process.argv.slice(3)) : main());
