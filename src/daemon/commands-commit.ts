/** QMP: block-commit. */
import { BlockError } from '../base/errors.js';
import { BlockBackend } from '../block/backend.js';
import { refuseBlocked } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { chainContains, chainFrom, findBackingImage, findOverlay, skipFilters } from '../image/chain.js';
import { nodeFilename } from '../image/filename.js';
import type { OnError } from '../job/block-job.js';
import { startActiveCommit } from '../job/commit-active.js';
import { startCommit } from '../job/commit.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';

export function commitCommands(daemon: StorageDaemon): CommandTable {
  return { 'block-commit': (args) => commit(daemon, args) };
}

async function commit(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const { graph } = daemon;
  const active = findRoot(daemon, args['device'] as string);
  refuseBlocked(active);
  const top = findTop(daemon, args, active);
  const base = findBase(daemon, args, top);
  for (const node of chainFrom(top)) {
    refuseBlocked(node);
    if (node === base) break;
  }
  if (top === base) throw invalid('cannot commit an image into itself');
  const backingFile = args['backing-file'] as string | undefined;
  const isActive = skipFilters(top) === skipFilters(active);
  if (isActive || hasWriter(top)) {
    if (backingFile !== undefined) throw invalid(isActive ? "'backing-file' specified, but 'top' is the active layer" : "'backing-file' specified, but 'top' has a writer on it");
    await startActiveCommit(graph, daemon.blockJobs, { ...jobOptions(args), top, base });
    return;
  }
  refuseBlocked(findOverlay(active, top)!);
  await startCommit(graph, daemon.blockJobs, { ...jobOptions(args), active, top, base, backingFile });
}

/** What block-commit and block-stream have in common. */
export function jobOptions(args: JsonDict) {
  const speed = args['speed'];
  return {
    jobId: (args['job-id'] as string | undefined) ?? '',
    speed: speed === undefined ? undefined : Number(speed),
    onError: args['on-error'] as OnError | undefined,
    filterNodeName: args['filter-node-name'] as string | undefined,
    autoFinalize: args['auto-finalize'] as boolean | undefined,
    autoDismiss: args['auto-dismiss'] as boolean | undefined,
  };
}

function findRoot({ graph }: StorageDaemon, name: string): BlockNode {
  const node = graph.find(name);
  if (node === undefined) throw new QmpCommandError('DeviceNotFound', `Device '${name}' not found`);
  if ([...node.parents].some((user) => !(user instanceof BlockBackend))) throw invalid('Need a root block node');
  return node;
}

function findTop(daemon: StorageDaemon, { top, 'top-node': topNode }: JsonDict, active: BlockNode): BlockNode {
  if (top !== undefined && topNode !== undefined) throw invalid("'top-node' and 'top' are mutually exclusive");
  if (topNode !== undefined) return inChain(daemon, active, topNode as string);
  if (top === undefined || top === nodeFilename(active)) return active;
  const found = findBackingImage(active, top as string);
  if (found === null) throw new BlockError('NOT_FOUND', `Top image file ${top as string} not found`);
  return found;
}

function findBase(daemon: StorageDaemon, { base, 'base-node': baseNode }: JsonDict, top: BlockNode): BlockNode {
  if (base !== undefined && baseNode !== undefined) throw invalid("'base-node' and 'base' are mutually exclusive");
  if (baseNode !== undefined) return inChain(daemon, top, baseNode as string);
  if (base === undefined) return findOverlay(top, null)!;
  const found = findBackingImage(top, base as string);
  if (found === null) throw new BlockError('NOT_FOUND', `Can't find '${base as string}' in the backing chain`);
  return found;
}

function inChain({ graph }: StorageDaemon, top: BlockNode, name: string): BlockNode {
  const node = findNode(graph, name);
  if (!chainContains(top, node)) throw invalid(`'${name}' is not in this backing file chain`);
  return node;
}

export function findNode(graph: StorageDaemon['graph'], name: string): BlockNode {
  const node = graph.find(name);
  if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='' nor node-name='${name}'`);
  return node;
}

function hasWriter(node: BlockNode): boolean {
  return [...node.parents].some(({ use }) => (use.used & Permission.WRITE) !== 0);
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
