/** What `quiesce commit` and `quiesce stream` share: one job on a chain of files, or on a daemon's nodes. */
import { runDaemonJob, type ChainJobOptions, type ChainJobResult } from '../src/index.js';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_EVENTS, TRACING } from './common-options.mjs';
import type { CommandContext } from './command.mjs';
import { FOR_FILES, refuseGiven } from './given.mjs';
import { JobTelling } from './job-text.mjs';

export const CHAIN_JOB_OPTIONS = {
  daemon: { type: 'string', value: 'SOCKET', help: "the image is a node of the storage daemon that listens there with QMP, ours or QEMU's, and BASE is a node too" },
  speed: { type: 'size', value: 'RATE', help: 'bytes per second at most, like 50M' },
  format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
  cache: { type: 'string', choices: CACHE_CHOICES, help: "QEMU's cache mode of the images; by default writeback" },
  backing: BACKING,
  json: JSON_EVENTS,
  ...TRACING,
} as const;

export interface ChainJobArgs {
  readonly image: string;
  readonly base: string | undefined;
  readonly daemon: string | undefined;
  readonly speed: number | undefined;
  readonly format: 'qcow2' | 'raw' | undefined;
  readonly cache: ChainJobOptions['cache'];
  readonly backing: ChainJobOptions['backing'];
  readonly json: boolean;
}

interface ChainJob {
  /** On the progress bar. */
  readonly label: string;
  readonly onFiles: (image: string, options: ChainJobOptions) => Promise<ChainJobResult>;
  readonly command: 'block-commit' | 'block-stream';
  readonly tell: (result: Omit<ChainJobResult, 'bytes'>) => string;
}

export async function runChainJob(job: ChainJob, args: ChainJobArgs, context: CommandContext): Promise<void> {
  const { image, base, daemon, speed, format, cache, backing, json } = args;
  const { signal, out } = context;
  if (daemon !== undefined) refuseGiven(context, ['format', 'cache', 'backing'], FOR_FILES);
  const telling = new JobTelling(job.label, json, out, await context.progress());
  const { onProgress, onEvent } = telling;
  const result = daemon === undefined
    ? await job.onFiles(image, { base, speed, format, cache, backing, signal, onProgress, onEvent })
    : await onDaemon(job, { daemon, image, base, speed, signal, onProgress, onEvent });
  telling.end(result, job.tell(result));
}

interface OnDaemon extends Pick<ChainJobOptions, 'base' | 'speed' | 'signal' | 'onProgress' | 'onEvent'> {
  readonly daemon: string;
  readonly image: string;
}

async function onDaemon(job: ChainJob, { daemon, image, base, speed, signal, onProgress, onEvent }: OnDaemon): Promise<Omit<ChainJobResult, 'bytes'>> {
  const args = { device: image, ...(base === undefined ? {} : { 'base-node': base }), ...(speed === undefined ? {} : { speed }) };
  await runDaemonJob({ daemon, command: job.command, args, signal, onProgress, onEvent });
  return { image, base: base ?? null };
}
