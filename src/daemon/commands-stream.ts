/** QMP: block-stream. */
import { BlockError } from '../base/errors.js';
import { refuseBlocked } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { chainContains, chainFrom, findBackingImage, findOverlay, nodeBelow, skipFilters } from '../image/chain.js';
import { startStream } from '../job/stream.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { findNode, jobOptions } from './commands-commit.js';
import type { StorageDaemon } from './daemon.js';

export function streamCommands(daemon: StorageDaemon): CommandTable {
  return { 'block-stream': (args) => stream(daemon, args) };
}

async function stream(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const { graph } = daemon;
  const { base, 'base-node': baseNode, bottom, 'backing-file': backingFile } = args;
  const together = (a: string, b: string): BlockError => invalid(`'${a}' and '${b}' cannot be specified at the same time`);
  if (base !== undefined && baseNode !== undefined) throw together('base', 'base-node');
  if (base !== undefined && bottom !== undefined) throw together('base', 'bottom');
  if (bottom !== undefined && baseNode !== undefined) throw together('bottom', 'base-node');
  const node = graph.lookUp(args['device'] as string);
  const found = findBase(daemon, args, node);
  const last = bottom === undefined ? undefined : findBottom(daemon, bottom as string, node);
  const end = last === undefined ? found : nodeBelow(last);
  for (const layer of chainFrom(node)) {
    if (layer === end) break;
    refuseBlocked(layer);
  }
  if (found === null && backingFile !== undefined) throw invalid('backing file specified, but streaming the entire chain');
  const { job } = await startStream(graph, daemon.blockJobs, { ...jobOptions(args), node, base: found, bottom: last, backingFile: backingFile as string | undefined });
  // where nothing lies between, QEMU's job has ended before its command has
  if (skipFilters(node) === (last ?? findOverlay(node, found)) && job.autoFinalize) await job.ended;
}

function findBase({ graph }: StorageDaemon, { base, 'base-node': baseNode }: JsonDict, node: BlockNode): BlockNode | null {
  if (base !== undefined) {
    const found = findBackingImage(node, base as string);
    if (found === null) throw new BlockError('NOT_FOUND', `Can't find '${base as string}' in the backing chain`);
    return found;
  }
  if (baseNode === undefined) return null;
  const found = findNode(graph, baseNode as string);
  if (found === node || !chainContains(node, found)) throw invalid(`Node '${baseNode as string}' is not a backing image of '${node.nodeName}'`);
  return found;
}

function findBottom({ graph }: StorageDaemon, name: string, node: BlockNode): BlockNode {
  const found = findNode(graph, name);
  if (found.driver.kind === 'filter') throw invalid(`Node '${name}' is a filter, use a non-filter node as 'bottom'`);
  if (!chainContains(node, found)) throw invalid(`Node '${name}' is not in a chain starting from '${node.nodeName}'`);
  return found;
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
