/** QMP: drive-mirror and drive-backup, which make or open the image that is their target, and let go of it at the end. */
import { BlockError } from '../base/errors.js';
import { refuseBlocked } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { resolveBackingName } from '../image/backing-name.js';
import { skipFilters } from '../image/chain.js';
import { nodeFilename } from '../image/filename.js';
import { backingEdit } from '../image/graph-edit.js';
import { openByName } from '../image/open-name.js';
import type { OptionTree } from '../image/options.js';
import { prepareBackup, type PreparedBackup } from '../job/backup/backup.js';
import type { JobTransaction } from '../job/job-transaction.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { asAction, backupOptions } from './commands-backup.js';
import { commonOptions, layerBelow, refuseSync, startAsAsked } from './commands-mirror.js';
import type { StorageDaemon } from './daemon.js';
import { makeImageFile } from './overlay-file.js';
import type { PreparedAction } from './transaction.js';

export function driveCommands(daemon: StorageDaemon): CommandTable {
  return {
    'drive-mirror': (args) => driveMirror(daemon, args),
    'drive-backup': async (args) => {
      const backup = await prepareDriveBackup(daemon, args, undefined);
      await backup.start();
      await backup.goOn();
    },
  };
}

/** As of `blockdev-backup`; the target stays open as long as the job. */
export async function prepareDriveBackupAction(daemon: StorageDaemon, args: JsonDict, transaction: JobTransaction | undefined): Promise<PreparedAction> {
  return asAction(await prepareDriveBackup(daemon, args, transaction));
}

async function driveMirror(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const { graph } = daemon;
  const source = graph.root(args['device'] as string);
  refuseBlocked(source);
  const common = commonOptions(args, source);
  const { sync, replaces } = common;
  const { 'node-name': nodeName, mode = 'absolute-paths' } = args;
  const layer = sync === 'none' ? source : layerBelow(source);
  if (replaces !== undefined && nodeName === undefined) throw new BlockError('INVALID_ARGUMENT', 'a node-name must be provided when replacing a named node of the graph');
  const options = { ...(nodeName === undefined ? {} : { 'node-name': nodeName as string }), discard: source.discardMode };
  // nothing lies below it while it is made: the mirror fills clusters from the source
  const target = await makeTarget(daemon, args, source, sync === 'full' ? null : layer, options, false);
  const below = sync === 'top' ? layer : sync === 'none' ? source : null;
  await heldByJob(daemon, target, async () => {
    refuseSync(sync, undefined);
    await startAsAsked(daemon, {
      ...common, target, unmap: args['unmap'] as boolean | undefined, targetIsZero: mode !== 'existing' && readsAsZeros(target),
      backingAtEnd: mode === 'existing' ? () => openRecorded(daemon, target) : async () => below,
    }, nodeName !== undefined && sync === 'full' && mode !== 'existing');
  });
}

async function prepareDriveBackup(daemon: StorageDaemon, args: JsonDict, transaction: JobTransaction | undefined): Promise<PreparedBackup> {
  const { graph, blockJobs } = daemon;
  const source = graph.lookUp(args['device'] as string);
  refuseBlocked(source);
  const top = args['sync'] === 'top' ? skipFilters(source).backing : null;
  const sync = args['sync'] === 'top' && top === null ? 'full' : args['sync'] as string;
  const below = sync === 'none' ? source : top;
  const target = await makeTarget(daemon, args, source, below, { discard: 'unmap', 'detect-zeroes': 'unmap' }, sync !== 'none');
  return heldByJob(daemon, target, async () => {
    if (sync === 'none') await layOn(daemon, target, source);
    return prepareBackup(graph, blockJobs, { ...backupOptions({ ...args, sync }, source, target), transaction });
  });
}

/** Makes the image, but for mode `existing`, and opens it. */
async function makeTarget(
  daemon: StorageDaemon, { target, format, mode }: JsonDict, source: BlockNode, below: BlockNode | null, options: OptionTree, withBacking: boolean,
): Promise<BlockNode> {
  const existing = mode === 'existing';
  const name = target as string;
  const driver = (format ?? (existing ? null : source.driver.formatName)) as string | null;
  if (!existing) await makeImageFile({ filename: name, format: driver!, size: source.length(), backing: below }, (line) => daemon.say('output', line));
  const { node, guessedRaw } = await openByName(daemon.graph, name, driver, {
    ...options, 'cache.direct': source.direct, 'cache.no-flush': source.noFlush, ...(withBacking || (driver !== 'qcow2' && driver !== null) ? {} : { backing: null }),
  }, daemon.blockdevContext);
  if (guessedRaw !== null) {
    daemon.say('errors', `WARNING: Image format was not specified for '${guessedRaw}' and probing guessed raw.\n` +
      '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
      "         Specify the 'raw' format explicitly to remove the restrictions.");
  }
  return node;
}

/** The monitor does not own it: it closes when the job, or who uses the disk afterwards, lets go of it. */
async function heldByJob<T>({ graph }: StorageDaemon, target: BlockNode, start: () => Promise<T>): Promise<T> {
  try {
    const started = await start();
    target.pinned = false;
    if (target.parents.size === 0) await target.close();
    return started;
  } catch (error) {
    if (!target.closing) await graph.remove(target.nodeName).catch(() => undefined);
    throw error;
  }
}

async function layOn({ graph }: StorageDaemon, target: BlockNode, source: BlockNode): Promise<void> {
  if (target.driver.setBacking === undefined) throw new BlockError('INVALID_ARGUMENT', `Driver '${target.driver.formatName}' of node '${target.nodeName}' does not support backing files`);
  await target.drained(() => graph.change([target, source], { edit: backingEdit(target, source) }));
}

/** A file that was just made; what a device or a server holds is not known. */
function readsAsZeros(target: BlockNode): boolean {
  let node = target;
  while (node.driver.kind !== 'protocol') node = node.children.find(({ role }) => role !== 'backing')!.node;
  return node.driver.formatName === 'file';
}

/** The backing file that the image names. It closes with the image. */
async function openRecorded({ graph, blockdevContext }: StorageDaemon, target: BlockNode): Promise<BlockNode | null> {
  const image = skipFilters(target);
  const { backingFile = null, backingFormat = null } = image.driver.describe?.() ?? {};
  if (backingFile === null || image.backing !== null) return null;
  const { node } = await openByName(graph, resolveBackingName(nodeFilename(image), backingFile, 'allow'), backingFormat, {
    'read-only': true, 'cache.direct': image.direct, 'cache.no-flush': image.noFlush, discard: image.discardMode,
  }, blockdevContext);
  node.pinned = false;
  return node;
}
