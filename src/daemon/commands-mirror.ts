/** QMP: mirrors. */
import { BlockError } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import type { OnError } from '../job/block-job.js';
import { startJournaledMirror } from '../job/mirror/journaled.js';
import type { MirrorSync } from '../job/mirror/begin.js';
import { mirrorOf, startMirror, type MirrorOptions } from '../job/mirror/mirror.js';
import type { ControllerOptions as ConvergenceOptions } from '../job/mirror/controller.js';
import type { CopyMode } from '../job/mirror/state.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { settled } from './commands-job.js';
import type { StorageDaemon } from './daemon.js';

export function mirrorCommands(daemon: StorageDaemon): CommandTable {
  return {
    'blockdev-mirror': (args) => mirror(daemon, args),
    'block-job-change': (args) => change(daemon, args),
  };
}

async function mirror(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const { graph } = daemon;
  const source = graph.root(args['device'] as string);
  const target = graph.lookUp(args['target'] as string);
  const sync = args['sync'] as MirrorSync;
  const bitmap = args['x-quiesce-bitmap'] as string | undefined;
  refuseSync(sync, bitmap);
  if (args['copy-mode'] !== undefined && args['x-quiesce-copy-mode'] !== undefined) throw new BlockError('INVALID_ARGUMENT', "'copy-mode' and 'x-quiesce-copy-mode' are mutually exclusive");
  await startAsAsked(daemon, {
    ...commonOptions(args, source), target, bitmap, filterNodeName: args['filter-node-name'] as string | undefined,
    targetIsZero: args['x-quiesce-target-is-zero'] as boolean | undefined, unmap: args['x-quiesce-unmap'] as boolean | undefined,
    operations: number(args, 'x-quiesce-operations'), verify: args['x-quiesce-verify'] as boolean | undefined,
    copyMode: (args['x-quiesce-copy-mode'] ?? args['copy-mode']) as CopyMode | 'auto' | undefined, convergence: convergenceOf(args),
  }, true);
}

/** What blockdev-mirror and drive-mirror have in common. */
export function commonOptions(args: JsonDict, source: BlockNode): Omit<MirrorOptions, 'target'> {
  const sync = args['sync'] as MirrorSync;
  return {
    jobId: (args['job-id'] ?? '') as string, source, sync: sync === 'top' && layerBelow(source) === null ? 'full' : sync,
    replaces: args['replaces'] as string | undefined,
    speed: number(args, 'speed'), granularity: number(args, 'granularity'), bufSize: number(args, 'buf-size'),
    onSourceError: args['on-source-error'] as OnError | undefined, onTargetError: args['on-target-error'] as OnError | undefined,
    copyMode: args['copy-mode'] as CopyMode | undefined,
    autoFinalize: args['auto-finalize'] as boolean | undefined, autoDismiss: args['auto-dismiss'] as boolean | undefined,
  };
}

/** `survives`: where there is a journal; its nodes must be there under their names after a crash. */
export async function startAsAsked({ graph, blockJobs, journal }: StorageDaemon, options: MirrorOptions, survives: boolean): Promise<void> {
  await (journal === null || !survives ? startMirror(graph, blockJobs, options) : startJournaledMirror(graph, blockJobs, journal, options));
  await settled();
}

/** Without a bitmap of ours, as QEMU does. */
export function refuseSync(sync: MirrorSync, bitmap: string | undefined): void {
  const byBitmap = sync === 'incremental' || sync === 'bitmap';
  if (byBitmap && bitmap === undefined) throw new BlockError('NOT_SUPPORTED', `Sync mode '${sync}' not supported`);
  if (!byBitmap && bitmap !== undefined) throw new BlockError('INVALID_ARGUMENT', `Sync mode '${sync}' does not take a bitmap`);
}

function convergenceOf(args: JsonDict): ConvergenceOptions {
  return {
    deadlineMs: number(args, 'x-quiesce-deadline'), maxGuestLatencyMs: number(args, 'x-quiesce-max-guest-latency'),
    throttleBelow: number(args, 'x-quiesce-throttle-below'), minGuestRate: number(args, 'x-quiesce-min-guest-rate'),
  };
}

/** Both ways, which QEMU's (8.2) does not go. */
function change({ blockJobs }: StorageDaemon, args: JsonDict): void {
  const blockJob = blockJobs.find(args['id'] as string);
  if (blockJob === undefined) throw new QmpCommandError('DeviceNotActive', `Block job '${args['id'] as string}' not found`);
  blockJob.job.apply('change');
  const mirror = mirrorOf(blockJob);
  if (mirror === undefined || args['type'] !== blockJob.type) throw new BlockError('INVALID_ARGUMENT', 'Job type does not support change');
  mirror.setCopyMode(args['copy-mode'] as CopyMode | 'auto');
}

function number(args: JsonDict, name: string): number | undefined {
  return args[name] === undefined ? undefined : Number(args[name]);
}

/** What the node overlays, filters left aside. */
export function layerBelow(node: BlockNode): BlockNode | null {
  const below = node.driver.kind === 'filter' ? node.children.find(({ role }) => role === 'filtered')?.node : undefined;
  return below === undefined ? node.backing : layerBelow(below);
}
