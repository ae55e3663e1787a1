/** QMP's `transaction`: several verbs, all or none. */
import { BlockError } from '../base/errors.js';
import { BlockBackend } from '../block/backend.js';
import { drained } from '../block/drain.js';
import type { BlockNode } from '../block/node.js';
import { JobTransaction } from '../job/job-transaction.js';
import type { CommandTable } from '../qmp/server.js';
import type { Json, JsonDict } from '../qobject/value.js';
import { prepareBackupAction } from './commands-backup.js';
import { prepareBitmapAction } from './commands-bitmap.js';
import { prepareDriveBackupAction } from './commands-drive.js';
import { prepareInternalSnapshot, prepareNewOverlay, prepareOverlay } from './commands-snapshot.js';
import type { StorageDaemon } from './daemon.js';
import { pauseJobs, whileJobsPause } from './job-pauses.js';

/** What was done already, or is ready to be done. */
export interface PreparedAction {
  /** Cannot fail. */
  commit?(): Promise<void>;
  abort?(): Promise<void>;
  /** After all others have been committed or taken back. */
  clean?(): Promise<void>;
  /** When nothing is drained any more: what happens without anything from outside has happened. */
  settled?(): Promise<void>;
}

/** Verbs that are a transaction by themselves, with the action that it consists of. */
const ALONE = ['blockdev-backup', 'blockdev-snapshot', 'blockdev-snapshot-internal-sync', 'blockdev-snapshot-sync'] as const;

export function transactionCommands(daemon: StorageDaemon): CommandTable {
  return {
    transaction: (args) => transaction(daemon, args),
    ...Object.fromEntries(ALONE.map((type) => [type, (data: JsonDict) => whileAllPause(daemon, [{ type, data }], (actions) => carryOut(daemon, actions, false))])),
  };
}

async function transaction(daemon: StorageDaemon, { actions, properties }: JsonDict): Promise<void> {
  const grouped = (properties as JsonDict | undefined)?.['completion-mode'] === 'grouped';
  await whileAllPause(daemon, actions as readonly JsonDict[], (all) => drained(busyTops(daemon), () => carryOut(daemon, all, grouped)));
}

/** QEMU drains all nodes, lets go of them, and then drains those that an action is about until all is over. */
async function whileAllPause(
  daemon: StorageDaemon, actions: readonly JsonDict[], work: (actions: readonly JsonDict[]) => Promise<readonly PreparedAction[]>,
): Promise<void> {
  const { blockJobs } = daemon;
  await pauseJobs(blockJobs, 'all');
  const done = await whileJobsPause(blockJobs, subjects(daemon, actions), () => work(actions));
  for (const one of done) await one.settled?.();
}

/** Up to the first that is not there, and will be refused. */
function subjects({ graph }: StorageDaemon, actions: readonly JsonDict[]): BlockNode[] {
  const nodes: BlockNode[] = [];
  for (const { type, data } of actions) {
    if (type !== 'drive-backup' && !(ALONE as readonly Json[]).includes(type!)) continue;
    const { node, device, 'node-name': nodeName } = data as JsonDict;
    const found = graph.find((node ?? nodeName ?? device) as string);
    if (found === undefined || (type === 'blockdev-snapshot-internal-sync' && !isRoot(found))) break;
    nodes.push(found);
  }
  return nodes;
}

function isRoot(node: BlockNode): boolean {
  return [...node.parents].every((user) => user instanceof BlockBackend);
}

async function carryOut(daemon: StorageDaemon, actions: readonly JsonDict[], grouped: boolean): Promise<readonly PreparedAction[]> {
  const prepared: PreparedAction[] = [];
  const jobs = grouped ? new JobTransaction() : undefined;
  try {
    for (const action of actions) {
      const type = action['type'] as string;
      if (grouped && !JOBS.includes(type)) throw new BlockError('INVALID_ARGUMENT', `Action '${type}' does not support Transaction property completion-mode = grouped`);
      prepared.push(await prepare(daemon, type, action['data'] as JsonDict, jobs));
    }
  } catch (error) {
    // the last first: later ones may stand on earlier ones
    for (const done of prepared.reverse()) await done.abort?.();
    throw error;
  }
  for (const ready of prepared) await ready.commit?.();
  for (const ready of prepared) await ready.clean?.();
  return prepared;
}

const JOBS: readonly string[] = ['blockdev-backup', 'drive-backup'];

async function prepare(daemon: StorageDaemon, type: string, data: JsonDict, transaction: JobTransaction | undefined): Promise<PreparedAction> {
  if (type === 'blockdev-backup') return prepareBackupAction(daemon, data, transaction);
  if (type === 'drive-backup') return prepareDriveBackupAction(daemon, data, transaction);
  if (type === 'abort') throw new BlockError('CANCELLED', 'Transaction aborted using Abort action');
  if (type.startsWith('block-dirty-bitmap-')) return prepareBitmapAction(daemon, type, data);
  if (type === 'blockdev-snapshot-internal-sync') return prepareInternalSnapshot(daemon, data);
  if (type === 'blockdev-snapshot') return prepareOverlay(daemon, data);
  if (type === 'blockdev-snapshot-sync') return prepareNewOverlay(daemon, data);
  throw new BlockError('NOT_SUPPORTED', `Action '${type}' is not available`);
}

/** The nodes where users' requests come in, without those below others: what the latter do, they do for a reason. */
function busyTops({ graph }: StorageDaemon): BlockNode[] {
  const busy = new Set(graph.nodes().filter((node) => [...node.parents].some((user) => user instanceof BlockBackend)));
  for (const node of [...busy]) for (const below of descendants(node)) busy.delete(below);
  return [...busy];
}

function descendants(top: BlockNode): BlockNode[] {
  return top.children.flatMap(({ node }) => [node, ...descendants(node)]);
}
