import { formatSize, mirrorImage, mirrorOverQmp, type ConvergenceOptions, type MirrorProgress } from '../../src/index.js';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_EVENTS, TRACING } from '../common-options.mjs';
import { defineCommand, UsageError, type CommandContext } from '../command.mjs';
import { FOR_FILES, refuseGiven } from '../given.mjs';
import { describeProgress, drawJob, EventLines, seconds } from '../job-text.mjs';
import { tellForecast } from '../mirror/forecast.mjs';
import { hintExisting, refuseSame } from '../same-image.mjs';

const STEERING = ['deadline', 'max-guest-latency', 'throttle-below', 'min-guest-rate'] as const;

export const command = defineCommand({
  description: 'Copies a disk into another, and whatever is written to it meanwhile as well. Of files it copies what nobody else writes. With --daemon it ' +
    'mirrors a node that clients of a Quiesce daemon write to, with --qmp a disk of a running QEMU, whose own mirror it drives; the target is then what the ' +
    'disk was at one moment, or with --pivot takes its place. Exit code 0 means that the data is safe on the target; whatever else happens, the source is as it was.',
  positionals: {
    source: { help: 'an image or NBD URI; with --daemon the name of a node; with --qmp a device (its id, name or path) or node' },
    target: { help: 'a file to make, or an NBD URI; with --daemon and --qmp also the name of a node there' },
  },
  options: {
    daemon: { type: 'string', value: 'SOCK', help: 'QMP socket of the storage daemon that has the source open' },
    qmp: { type: 'string', value: 'SOCK', help: 'QMP socket of the QEMU (a machine or qemu-storage-daemon) that has the source open' },
    sync: {
      type: 'string', choices: ['full', 'top', 'none', 'bitmap', 'incremental'], value: 'MODE',
      help: 'what is copied, beside what is written meanwhile. full: all; top: what the first image of a chain holds, into an overlay of the image below it; none: nothing, ' +
        'until Ctrl-C or the --pivot; bitmap: what --bitmap says; incremental: the same, and the bitmap starts anew at the end. Default: full, or incremental with --bitmap',
    },
    bitmap: { type: 'string', value: 'NAME', help: 'a bitmap of the source (image bitmap add): brings a copy up to date that is there. Not with --qmp' },
    pivot: { type: 'boolean', help: 'with --daemon or --qmp: at the end the users of the source go on with the target' },
    'copy-mode': {
      type: 'string', choices: ['auto', 'background', 'write-blocking'], default: 'auto', value: 'MODE',
      help: 'background may never end under load; write-blocking makes guests wait for the target; auto begins in the background, and slows guests down as far as the deadline needs',
    },
    deadline: { type: 'number', min: 1, max: 4_000_000, value: 'SECONDS', help: 'for auto: ready after so long. Default: twice the first estimate and 10 s' },
    'max-guest-latency': { type: 'number', min: 10, max: 600_000, value: 'MS', help: 'for auto: how long a guest waits for a target that has died; with --qmp and QEMU before 8.2, how long the machine may stand still at the end. Default 1000' },
    'throttle-below': { type: 'size', value: 'BYTES', help: 'for auto: when so little is left to copy, guests may be slowed down. Default: what the target takes in 2 s' },
    'min-guest-rate': { type: 'size', value: 'BYTES', help: 'for auto: bytes per second that guests may always write. Default 0' },
    speed: { type: 'size', value: 'BYTES', help: 'copy no more than so many bytes per second' },
    granularity: { type: 'size', min: 512, max: 64 * 1024 * 1024, value: 'BYTES', help: "what is copied at least where something was written, a power of two. Default: the target's clusters, 4K to 64K" },
    'buf-size': { type: 'size', min: 1, value: 'BYTES', help: 'memory for what is in flight. Default 16M' },
    operations: { type: 'number', min: 1, max: 1024, value: 'N', help: 'copies in flight. Default 16. Not with --qmp' },
    verify: { type: 'boolean', help: 'compare both before the end; where they differ, say where first, fail, and leave everybody on the source. Not with --qmp' },
    forecast: { type: 'boolean', help: 'copy nothing: measure for a few seconds, and tell whether it would end, and when' },
    'source-format': { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the source, a file, has this format' },
    'target-format': { type: 'string', alias: 'O', choices: FORMAT_CHOICES, help: 'format of the target; by default qcow2 for a name that ends so, else raw' },
    existing: { type: 'boolean', alias: 'n', help: 'write into the target file that is there' },
    cache: { type: 'string', choices: CACHE_CHOICES, default: 'writeback', help: "of files: QEMU's cache mode of images" },
    backing: BACKING,
    json: JSON_EVENTS,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce mirror disk.qcow2 copy.qcow2 --verify', does: 'copy an image, and compare' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 /mnt/new/disk.qcow2 --pivot --verify', does: 'move a disk that a guest is writing to another place' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 nbd://backup/disk --deadline 600', does: 'copy it to a server, within ten minutes' },
    { line: 'quiesce mirror --qmp /run/vm.qmp virtio0 /mnt/new/disk.qcow2 --pivot', does: "move a running QEMU's disk" },
    { line: 'quiesce mirror disk.qcow2 copy.qcow2 --existing --bitmap daily', does: 'bring that copy up to date' },
    { line: 'quiesce mirror --daemon /run/quiesce.qmp disk0 /mnt/new/disk.qcow2 --forecast', does: 'how long would that take?' },
  ],
  run: async (args, context) => {
    const { daemon, qmp, deadline, maxGuestLatency, throttleBelow, minGuestRate } = args;
    refuseMixed(args, context);
    refuseSync(args);
    const convergence: ConvergenceOptions = { deadlineMs: deadline === undefined ? undefined : deadline * 1000, maxGuestLatencyMs: maxGuestLatency, throttleBelow, minGuestRate };
    const remote = daemon ?? qmp;
    if (args.forecast) return tellForecast({ ...args, daemon: remote, convergence }, context);
    const told = await tell(args.json, context);
    await (remote === undefined ? mirrorFiles(args, told, context) : mirrorLive(remote, { ...args, convergence }, told, context));
  },
});

interface MirrorArgs {
  readonly source: string;
  readonly target: string;
  readonly sync: 'full' | 'top' | 'none' | 'bitmap' | 'incremental' | undefined;
  readonly bitmap: string | undefined;
  readonly pivot: boolean;
  readonly copyMode: 'auto' | 'background' | 'write-blocking';
  readonly speed: number | undefined;
  readonly granularity: number | undefined;
  readonly bufSize: number | undefined;
  readonly operations: number | undefined;
  readonly verify: boolean;
  readonly sourceFormat: 'qcow2' | 'raw' | undefined;
  readonly targetFormat: 'qcow2' | 'raw' | undefined;
  readonly existing: boolean;
  readonly cache: (typeof CACHE_CHOICES)[number];
  readonly backing: 'allow' | 'same-dir' | 'deny';
  readonly json: boolean;
}

function refuseMixed({ daemon, qmp, copyMode, verify, forecast }: { daemon: string | undefined; qmp: string | undefined; copyMode: string; verify: boolean; forecast: boolean }, context: CommandContext): void {
  if (daemon !== undefined && qmp !== undefined) throw new UsageError('--daemon and --qmp exclude each other');
  if (qmp !== undefined) refuseGiven(context, ['operations'], () => 'does not go with --qmp: QEMU has 16 in flight, always');
  if (qmp !== undefined && verify) throw new UsageError('--verify does not go with --qmp: QEMU has both disks open, and cannot compare them');
  if (daemon === undefined && qmp === undefined) {
    refuseGiven(context, ['pivot', 'copy-mode', ...forecast ? [] : STEERING], (plural) => `${plural ? 'go' : 'goes'} with --daemon or --qmp: nobody else writes to a file that is mirrored`);
  } else {
    refuseGiven(context, ['source-format', 'cache', 'backing'], FOR_FILES);
  }
  if (copyMode !== 'auto') refuseGiven(context, STEERING, (plural) => `${plural ? 'go' : 'goes'} with --copy-mode auto`);
  if (forecast) refuseGiven(context, ['pivot', 'verify', 'existing', 'copy-mode', 'sync', 'bitmap', 'granularity', 'buf-size', 'operations', 'cache', 'backing', 'target-format'], (plural) => `${plural ? 'do' : 'does'} not go with --forecast: nothing is copied`);
}

function refuseSync({ daemon, qmp, sync, bitmap, verify }: Pick<MirrorArgs, 'sync' | 'bitmap' | 'verify'> & { readonly daemon: string | undefined; readonly qmp: string | undefined }): void {
  const byBitmap = sync === 'bitmap' || sync === 'incremental';
  if (byBitmap && bitmap === undefined) throw new UsageError(`--sync ${sync} needs --bitmap, which says what is to be copied`);
  if (bitmap !== undefined && sync !== undefined && !byBitmap) throw new UsageError(`--bitmap does not go with --sync ${sync}, but with bitmap and incremental`);
  if (bitmap !== undefined && qmp !== undefined) throw new UsageError("--bitmap does not go with --qmp: QEMU's mirrors do not copy by bitmaps");
  if (sync === 'none' && daemon === undefined && qmp === undefined) throw new UsageError('--sync none goes with --daemon or --qmp: nobody else writes to a file that is mirrored');
  if (verify && (sync === 'top' || sync === 'none')) throw new UsageError(`--verify does not go with --sync ${sync}: the target is not to be equal to the source`);
}

interface Told {
  readonly onProgress: (progress: MirrorProgress) => void;
  readonly onEvent: ((event: string, data: Readonly<Record<string, unknown>>) => void) | undefined;
  /** The end, for programs and for people. */
  readonly end: (facts: Readonly<Record<string, unknown>>, text: (took: string) => string) => void;
}

async function tell(json: boolean, { out, progress }: CommandContext): Promise<Told> {
  const startedMs = performance.now();
  const bars = await progress();
  const lines = new EventLines((line) => out.line(line), describeProgress);
  return {
    onProgress: (now) => {
      drawJob(bars, now);
      if (json) lines.progress(now);
    },
    onEvent: json ? (event, data) => lines.event(event, data) : undefined,
    end: (facts, text) => {
      bars.stop();
      const took = Math.round(performance.now() - startedMs);
      out.line(json ? JSON.stringify({ ...facts, seconds: took / 1000 }) : text(seconds(took)));
    },
  };
}

async function mirrorFiles(args: MirrorArgs, told: Told, { signal }: CommandContext): Promise<void> {
  const { source, target, sync, bitmap, existing, verify, sourceFormat, targetFormat, speed, granularity, bufSize, operations, cache, backing } = args;
  refuseSame(source, target);
  const { onProgress, onEvent, end } = told;
  const mirrored = await mirrorImage(source, target, {
    sync: sync === 'none' ? undefined : sync, bitmap, speed, granularity, bufSize, operations, verify, sourceFormat, targetFormat, createTarget: !existing, cache,
    backing, signal, onProgress, onEvent,
  }).catch(hintExisting);
  end({ source, target, ...bitmap === undefined ? {} : { bitmap }, ...mirrored, verified: verify }, (took) =>
    `'${target}' is a copy of '${source}': ${formatSize(mirrored.bytes)}, ${formatSize(mirrored.written)} of it written, in ${took}${verify ? '; both are equal' : ''}`);
}

async function mirrorLive(qmp: string, args: MirrorArgs & { readonly convergence: ConvergenceOptions }, told: Told, { signal, warn }: CommandContext): Promise<void> {
  const { source, target, sync, bitmap, pivot, copyMode, convergence, speed, granularity, bufSize, operations, verify, existing, targetFormat } = args;
  const { onProgress, onEvent, end } = told;
  const { written } = await mirrorOverQmp({
    qmp, source, target, sync, bitmap, targetFormat, createTarget: !existing, pivot, copyMode, convergence, speed, granularity, bufSize, operations, verify, signal, onProgress, onEvent, onWarning: warn,
  }).catch(hintExisting);
  end({ source, target, ...bitmap === undefined ? {} : { bitmap }, written, pivoted: pivot, verified: verify }, (took) =>
    `'${target}' ${pivot ? `has taken the place of '${source}'` : sync === 'none' ? `has what was written to '${source}' meanwhile` : `is what '${source}' was`}: ${formatSize(written)} copied in ${took}${verify ? '; both were equal' : ''}`);
}
