import { rmSync } from 'node:fs';
import { formatSize, isNbdName, mirrorImage, type ConvergenceOptions, type Mirror, type MirrorImageOptions } from '../../src/index.js';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_OUTPUT } from '../common-options.mjs';
import { defineCommand, UsageError, type CommandContext } from '../command.mjs';
import { seconds } from '../job-text.mjs';
import { mirrorOnDaemon } from '../mirror/daemon.mjs';
import { tellForecast } from '../mirror/forecast.mjs';
import { formatByName, refuseSame, statOf } from '../same-image.mjs';

export const command = defineCommand({
  description: 'Copies a disk into another, and whatever is written to it meanwhile as well. Of files it copies what nobody else writes. With --daemon it ' +
    'mirrors a node that guests write to; the target is then what the node was at one moment, or with --pivot takes its place. Exit code 0 means that ' +
    'the data is safe on the target.',
  positionals: {
    source: { help: 'an image or NBD URI; with --daemon the name of a node' },
    target: { help: 'an image or NBD URI; with --daemon also the name of a node' },
  },
  options: {
    daemon: { type: 'string', value: 'SOCK', help: 'QMP socket of the storage daemon that has the source open' },
    pivot: { type: 'boolean', help: 'with --daemon: at the end the users of the source go on with the target' },
    'copy-mode': {
      type: 'string', choices: ['auto', 'background', 'write-blocking'], default: 'auto', value: 'MODE',
      help: 'background may never end under load; write-blocking makes guests wait for the target; auto begins in the background, and slows guests down as far as the deadline needs',
    },
    deadline: { type: 'number', min: 1, max: 4_000_000, value: 'SECONDS', help: 'for auto: ready after so long. Default: twice the first estimate and 10 s' },
    'max-guest-latency': { type: 'number', min: 10, max: 600_000, value: 'MS', help: 'for auto: how long a guest waits for a target that has died. Default 1000' },
    'min-guest-rate': { type: 'size', value: 'BYTES', help: 'for auto: bytes per second that guests may always write' },
    speed: { type: 'size', value: 'BYTES', help: 'copy no more than so many bytes per second' },
    verify: { type: 'boolean', help: 'of files and exports: compare both at the end; where they differ, say where first, and fail' },
    forecast: { type: 'boolean', help: 'copy nothing: measure for a few seconds, and tell whether it would end, and when' },
    'source-format': { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the source has this format' },
    'target-format': { type: 'string', alias: 'O', choices: FORMAT_CHOICES, help: 'format of the target; by default qcow2 for a name that ends so, else raw' },
    existing: { type: 'boolean', alias: 'n', help: 'write into the target file that is there' },
    cache: { type: 'string', choices: CACHE_CHOICES, default: 'writeback', help: "QEMU's cache mode of images" },
    backing: BACKING,
    json: JSON_OUTPUT,
  },
  examples: [
    { line: 'quiesce mirror disk.qcow2 copy.qcow2 --verify', does: 'copy an image, and compare' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 /mnt/new/disk.qcow2 --pivot', does: 'move a disk that a guest is writing to another place' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 nbd://backup/disk --deadline 600', does: 'copy it to a server, within ten minutes' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 /mnt/new/disk.qcow2 --forecast', does: 'how long would that take?' },
  ],
  run: async (args, context) => {
    const { daemon, deadline, maxGuestLatency, minGuestRate, forecast } = args;
    refuseMixed(args);
    const convergence: ConvergenceOptions = { deadlineMs: deadline === undefined ? undefined : deadline * 1000, maxGuestLatencyMs: maxGuestLatency, minGuestRate };
    const targetFormat = args.targetFormat ?? formatByName(args.target);
    if (forecast) return tellForecast({ ...args, convergence }, context);
    if (daemon !== undefined) return mirrorOnDaemon({ ...args, daemon, convergence, targetFormat }, context);
    return mirrorFiles({ ...args, convergence, targetFormat }, context);
  },
});

interface ModeArgs {
  readonly daemon: string | undefined;
  readonly pivot: boolean;
  readonly verify: boolean;
  readonly sourceFormat: string | undefined;
  readonly copyMode: string;
  readonly deadline: number | undefined;
  readonly maxGuestLatency: number | undefined;
  readonly minGuestRate: number | undefined;
}

function refuseMixed({ daemon, pivot, verify, sourceFormat, copyMode, ...steering }: ModeArgs): void {
  if (daemon === undefined && pivot) throw new UsageError('--pivot goes with --daemon');
  if (daemon !== undefined && (verify || sourceFormat !== undefined)) throw new UsageError('--verify and --source-format do not go with --daemon');
  const steered = (steering.deadline ?? steering.maxGuestLatency ?? steering.minGuestRate) !== undefined;
  if (copyMode !== 'auto' && steered) throw new UsageError('--deadline, --max-guest-latency and --min-guest-rate go with --copy-mode auto');
}

interface FilesArgs extends Pick<MirrorImageOptions, 'sourceFormat' | 'copyMode' | 'convergence' | 'speed' | 'cache' | 'backing'> {
  readonly source: string;
  readonly target: string;
  readonly targetFormat: 'raw' | 'qcow2';
  readonly existing: boolean;
  readonly verify: boolean;
  readonly json: boolean;
}

async function mirrorFiles({ source, target, existing, json, ...options }: FilesArgs, context: CommandContext): Promise<void> {
  refuseSame(source, target);
  const { verify } = options;
  const found = statOf(target);
  const createTarget = !existing && (options.targetFormat !== 'raw' || found === undefined || found.isFile());
  const { sourceFormat, targetFormat, copyMode, convergence, speed, cache, backing } = options;
  const startedMs = performance.now();
  try {
    const mirrored = await mirrorImage(source, target, {
      sync: 'full', copyMode, convergence, speed, verify, sourceFormat, targetFormat, createTarget, cache, backing, signal: context.signal,
      onProgress: await bar(context), onEvent: json ? (event, data) => context.out.line(JSON.stringify({ event, ...data })) : undefined,
    });
    const took = Math.round(performance.now() - startedMs);
    if (json) context.out.line(JSON.stringify({ source, target, ...mirrored, verified: verify, seconds: took / 1000 }));
    else context.out.line(`'${target}' is a copy of '${source}': ${formatSize(mirrored.bytes)}, ${formatSize(mirrored.written)} of it written, in ${seconds(took)}${verify ? '; both are equal' : ''}`);
  } catch (error) {
    // half a copy looks like a disk
    if (createTarget && found === undefined && !isNbdName(target)) rmSync(target, { force: true });
    throw error;
  }
}

async function bar(context: CommandContext): Promise<(mirror: Mirror) => void> {
  const bars = await context.progress();
  let started = false;
  return ({ blockJob, convergence }) => {
    const { offset, len } = blockJob.info();
    if (len === 0) return;
    if (!started) bars.start(len, 'mirror');
    started = true;
    bars.update(offset, convergence === null ? 'mirror' : `mirror ${convergence.phase}`);
  };
}

