/** QMP: nodes of the graph. */
import { openBlockdev } from '../image/blockdev.js';
import type { OptionTree } from '../image/options.js';
import { reopenBlockdevs } from '../image/reopen.js';
import { restoreOpened } from '../job/interrupted-load.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';

export function blockCommands(daemon: StorageDaemon): CommandTable {
  const { graph } = daemon;
  return {
    'blockdev-add': (args) => addBlockdev(daemon, args),
    'blockdev-reopen': ({ options }) => reopenBlockdevs(graph, options as readonly OptionTree[], daemon.blockdevContext),
    'blockdev-del': (args) => daemon.removeNode(args['node-name'] as string),
  };
}

/** `options`: BlockdevOptions, checked by the schema. */
export async function addBlockdev(daemon: StorageDaemon, options: JsonDict): Promise<void> {
  const node = await openBlockdev(daemon.graph, options as OptionTree, daemon.blockdevContext);
  const told = await restoreOpened(node).catch(async (error: unknown) => {
    await daemon.graph.remove(node.nodeName).catch(() => undefined);
    throw error;
  });
  if (told !== null) daemon.say('errors', told);
}
