/** QMP: changes of single nodes. */
import { BlockError } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { resizeNode } from '../block/resize.js';
import { QuorumDriver } from '../filter/quorum.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import { whileJobsPause } from './job-pauses.js';

export function nodeCommands(daemon: StorageDaemon): CommandTable {
  const { graph } = daemon;
  return {
    block_resize: (args) => resize(daemon, args),
    'block-set-write-threshold': (args) => {
      const name = args['node-name'] as string;
      const node = graph.find(name);
      if (node === undefined) throw new QmpCommandError('GenericError', `Device '${name}' not found`);
      daemon.thresholds.set(node, Number(args['write-threshold']));
    },
    'x-blockdev-set-iothread': (args) => {
      graph.get(args['node-name'] as string);
      // threads of QEMU's kind are not needed here: any that exists will do
      const { iothread } = args;
      if (typeof iothread === 'string' && !daemon.hasIothread(iothread)) throw new BlockError('NOT_FOUND', `Cannot find iothread ${iothread}`);
    },
    'x-blockdev-change': (args) => changeChildren(daemon, args),
  };
}

/** QEMU's largest image, in bytes. */
const MAX_LENGTH = 9_223_372_035_781_033_984n;

async function resize({ graph, blockJobs }: StorageDaemon, args: JsonDict): Promise<void> {
  const { device = '', 'node-name': nodeName = '', size } = args;
  // this process has no devices
  const node = graph.find(nodeName as string);
  if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='${device as string}' nor node-name='${nodeName as string}'`);
  const bytes = Number(size);
  if (node.blockers.size > 0 || isBacking(node)) throw new BlockError('BUSY', `Device '${args['device'] === undefined ? '(null)' : device as string}' is in use`);
  if (bytes < 0) throw new BlockError('INVALID_ARGUMENT', "Parameter 'size' expects a >0 size");
  const wanted = BigInt(size as number | bigint);
  if (wanted > MAX_LENGTH) throw new BlockError('INVALID_ARGUMENT', `offset(${wanted}) exceeds maximum(${MAX_LENGTH})`);
  const door = await graph.attach(node, { used: Permission.RESIZE, shared: Permission.ALL });
  try {
    if (node.readOnly) throw new BlockError('READ_ONLY', 'Image is read-only');
    await whileJobsPause(blockJobs, [node], () => resizeNode(node, bytes));
  } finally {
    await graph.detach(door);
  }
}

function isBacking(node: BlockNode): boolean {
  return [...node.parents].some((user) => user instanceof BlockChild && user.role === 'backing');
}

/** Adds a child to a quorum, or takes one away. */
async function changeChildren({ graph }: StorageDaemon, { parent, child, node }: JsonDict): Promise<void> {
  const above = graph.lookUp(parent as string);
  if ((child === undefined) === (node === undefined)) {
    throw new BlockError('INVALID_ARGUMENT', child === undefined ? 'Either child or node must be specified' : 'The parameters child and node are in conflict');
  }
  const quorum = above.driver instanceof QuorumDriver ? above.driver : null;
  if (child !== undefined) {
    const edge = above.children.find((one) => one.edge === child);
    if (edge === undefined) throw new BlockError('NOT_FOUND', `Node '${parent as string}' does not have child '${child as string}'`);
    if (quorum === null) throw new BlockError('NOT_SUPPORTED', `The node ${parent as string} does not support removing a child`);
    await above.drained(async () => quorum.removeChild(edge));
    await edge.detach();
    await graph.refresh([above]);
    return;
  }
  const below = graph.find(node as string);
  if (below === undefined) throw new BlockError('NOT_FOUND', `Node '${node as string}' not found`);
  if (quorum === null) throw new BlockError('NOT_SUPPORTED', `The node ${parent as string} does not support adding a child`);
  if (below.parents.size > 0) throw new BlockError('BUSY', `The node ${below.nodeName} already has a parent`);
  await above.drained(async () => {
    const edge = quorum.addChild(below);
    edge.parent = above;
    try {
      await graph.refresh([above]);
    } catch (error) {
      quorum.undoAdd(edge);
      throw error;
    }
  });
}
