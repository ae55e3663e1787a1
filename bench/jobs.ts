/**
 * Block jobs of ours against those of qemu-storage-daemon, driven by the same QMP over equal files, in turns: whole copies of
 * an idle disk, and mirrors of one that a guest uses.
 *
 *   npm run bench -- jobs [--rounds N] [--size MiB] [--disk-size MiB] [--dir DIRECTORY] [--stall SECONDS] [--only TEXT]... [--json FILE] [--check]
 *
 * Copies are made in memory (/dev/shm, which takes the disk out of the comparison), and below --dir through the page cache
 * and past it. `--only` keeps the measurements whose title contains the text (several: all of them), as `stream` or
 * `stands still`, which takes as long as its target does (`--stall`). The best of the rounds counts, the median tells how
 * noisy they were. `--check` fails if a target is missed.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { repository } from '../test/support/run.js';
import { HEADING, plainLine, type Comparison } from './lib/comparison.js';
import { FOUNDING_LOOP } from './lib/guest-latency.js';
import { measureCopies, type Place } from './lib/job-copies.js';
import { GUEST_PARTS } from './lib/job-guests.js';
import { met, type Target } from './lib/series.js';

const MiB = 1024 * 1024;
const MEMORY = '/dev/shm';

interface Setup {
  readonly bytes: number;
  readonly diskBytes: number;
  readonly disk: string;
  readonly rounds: number;
  readonly stallSeconds: number;
  readonly wanted: (title: string) => boolean;
}

class Report {
  readonly comparisons: Comparison[] = [];
  readonly targets: Target[] = [];
  /** Title to figures. */
  readonly details: Record<string, unknown> = {};

  readonly told = (comparison: Comparison): void => {
    console.log(comparison.line);
    this.comparisons.push(comparison);
    this.targets.push(comparison.target);
  };

  readonly target = (target: Target): void => {
    console.log(plainLine(target));
    this.targets.push(target);
  };

  readonly detail = (title: string, data: unknown): void => { this.details[title] = data; };
}

/** With a directory of its own, which goes afterwards. */
async function at(parent: string, place: Omit<Place, 'directory'>, work: (place: Place) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(parent, 'quiesce-jobs-'));
  try {
    await work({ ...place, directory });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measureAll(setup: Setup, report: Report): Promise<void> {
  const { bytes, diskBytes, disk, rounds, stallSeconds, wanted } = setup;
  const memory = { name: 'memory', bytes, direct: false, memory: true };
  const onDisk = { bytes: diskBytes, memory: false };
  for (const [parent, place] of [[MEMORY, memory], [disk, { ...onDisk, name: 'writeback', direct: false }], [disk, { ...onDisk, name: 'none', direct: true }]] as const) {
    await at(parent, place, (made) => measureCopies(made, rounds, wanted, report.told));
  }
  for (const part of [...GUEST_PARTS, FOUNDING_LOOP]) {
    if (!wanted(part.title)) continue;
    await at(MEMORY, memory, (place) => part.run({ place, rounds, stallSeconds, told: report.told, target: report.target, note: console.log, detail: report.detail }));
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    rounds: { type: 'string', default: '3' }, size: { type: 'string', default: '4096' }, 'disk-size': { type: 'string', default: '1024' },
    dir: { type: 'string', default: tmpdir() }, stall: { type: 'string', default: '150' },
    only: { type: 'string', multiple: true, default: [] }, check: { type: 'boolean', default: false },
    json: { type: 'string', default: join(repository, 'bench', 'results', 'jobs.json') },
  } });
  const report = new Report();
  console.log(HEADING);
  await measureAll({
    bytes: Number(values.size) * MiB, diskBytes: Number(values['disk-size']) * MiB, disk: values.dir, rounds: Number(values.rounds),
    stallSeconds: Number(values.stall), wanted: (title) => values.only.every((text) => title.includes(text)),
  }, report);
  const { comparisons, targets, details } = report;
  mkdirSync(dirname(values.json), { recursive: true });
  writeFileSync(values.json, `${JSON.stringify({
    node: process.version, rounds: Number(values.rounds), measurements: comparisons, targets: targets.map((target) => Object.assign(target, { met: met(target) })), details,
  }, null, 2)}\n`);
  if (values.check && !targets.every(met)) process.exitCode = 1;
}

await main();
