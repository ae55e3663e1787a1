/** QMP: blockdev-backup. */
import { prepareBackup, type BackupOptions, type BackupSync, type BitmapMode, type PreparedBackup } from '../job/backup/backup.js';
import { prepareJournaledBackup } from '../job/backup/journaled.js';
import type { BlockNode } from '../block/node.js';
import type { OnError } from '../job/block-job.js';
import type { JobTransaction } from '../job/job-transaction.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import type { PreparedAction } from './transaction.js';

/** With a transaction of jobs, they end together. */
export async function prepareBackupAction(daemon: StorageDaemon, args: JsonDict, transaction: JobTransaction | undefined): Promise<PreparedAction> {
  return asAction(await prepareKept(daemon, { ...blockdevOptions(daemon, args), transaction }));
}

/** It survives, where the daemon keeps its jobs. */
export function prepareKept({ graph, blockJobs, journal }: StorageDaemon, options: BackupOptions): Promise<PreparedBackup> {
  return journal === null ? prepareBackup(graph, blockJobs, options) : prepareJournaledBackup(graph, blockJobs, journal, options);
}

export function asAction(backup: PreparedBackup): PreparedAction {
  return { commit: () => backup.start(), abort: () => backup.giveUp(), clean: () => backup.goOn(), settled: () => backup.settled() };
}

function blockdevOptions({ graph }: StorageDaemon, args: JsonDict): BackupOptions {
  const source = graph.lookUp(args['device'] as string);
  return backupOptions(args, source, graph.lookUp(args['target'] as string));
}

/** Of blockdev-backup and of drive-backup. */
export function backupOptions(args: JsonDict, source: BlockNode, target: BlockNode): BackupOptions {
  const perf = args['x-perf'] as JsonDict | undefined ?? {};
  return {
    jobId: (args['job-id'] ?? '') as string, source, target, sync: args['sync'] as BackupSync,
    bitmap: args['bitmap'] as string | undefined, bitmapMode: args['bitmap-mode'] as BitmapMode | undefined,
    compress: args['compress'] as boolean | undefined, speed: number(args, 'speed'),
    onSourceError: args['on-source-error'] as OnError | undefined, onTargetError: args['on-target-error'] as OnError | undefined,
    filterNodeName: args['filter-node-name'] as string | undefined,
    maxWorkers: number(perf, 'max-workers'), maxChunk: number(perf, 'max-chunk'),
    autoFinalize: args['auto-finalize'] as boolean | undefined, autoDismiss: args['auto-dismiss'] as boolean | undefined,
  };
}

function number(args: JsonDict, name: string): number | undefined {
  return args[name] === undefined ? undefined : Number(args[name]);
}
