/** QMP: nodes of the graph. */
import { openBlockdev } from '../image/blockdev.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import type { OptionTree } from '../image/options.js';
import { reopenBlockdevs } from '../image/reopen.js';
import { restoreOpened } from '../job/interrupted-load.js';
import type { CommandTable } from '../qmp/server.js';
import { isDict, type JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import { drainAtRelease, subtrees, whileJobsPause } from './job-pauses.js';

export function blockCommands(daemon: StorageDaemon): CommandTable {
  const { graph } = daemon;
  return {
    'blockdev-add': (args) => addBlockdev(daemon, args),
    'blockdev-reopen': ({ options }) => {
      const list = options as readonly OptionTree[];
      const found = list.map((one) => graph.find(one['node-name'] as string));
      const missing = found.indexOf(undefined);
      const nodes = (missing < 0 ? found : found.slice(0, missing)) as readonly BlockNode[];
      return whileJobsPause(daemon.blockJobs, subtrees(nodes), () => reopenBlockdevs(graph, list, daemon.blockdevContext));
    },
    'blockdev-del': (args) => daemon.removeNode(args['node-name'] as string),
  };
}

/** `options`: BlockdevOptions, checked by the schema. */
export async function addBlockdev(daemon: StorageDaemon, options: JsonDict): Promise<void> {
  for (const looked of probed(daemon.graph, options)) await drainAtRelease(daemon.blockJobs, looked);
  const node = await openBlockdev(daemon.graph, options as OptionTree, daemon.blockdevContext);
  const told = await restoreOpened(node).catch(async (error: unknown) => {
    await daemon.graph.remove(node.nodeName).catch(() => undefined);
    throw error;
  });
  if (told !== null) daemon.say('errors', told);
}

/** Drivers on whose `file` QEMU has a look before they open it: that drains it. */
const LOOKING: readonly unknown[] = ['raw', 'qcow2', 'throttle', 'copy-on-read', 'copy-before-write', 'preallocate', 'snapshot-access'];

/** The nodes that are there already and become the `file` of such a driver. */
function* probed(graph: BlockGraph, options: JsonDict): Generator<BlockNode> {
  for (const [key, value] of Object.entries(options)) {
    if (isDict(value)) yield* probed(graph, value);
    const node = key === 'file' && typeof value === 'string' && LOOKING.includes(options['driver']) ? graph.find(value) : undefined;
    if (node !== undefined) yield node;
  }
}
