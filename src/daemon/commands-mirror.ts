/** QMP: mirrors. */
import { BlockError } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import type { OnError } from '../job/block-job.js';
import { startJournaledMirror } from '../job/mirror/journaled.js';
import { mirrorOf, startMirror, type MirrorOptions } from '../job/mirror/mirror.js';
import type { CopyMode } from '../job/mirror/state.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { settled } from './commands-job.js';
import type { StorageDaemon } from './daemon.js';

export function mirrorCommands(daemon: StorageDaemon): CommandTable {
  return {
    'blockdev-mirror': (args) => mirror(daemon, args),
    'x-quiesce-block-job-change': ({ id, 'copy-mode': copyMode }) => {
      const blockJob = daemon.blockJobs.find(id as string);
      if (blockJob === undefined) throw new QmpCommandError('DeviceNotActive', `Block job '${id as string}' not found`);
      const found = mirrorOf(blockJob);
      if (found === undefined) throw new BlockError('NOT_SUPPORTED', `Job type '${blockJob.type}' does not support change`);
      if (copyMode !== undefined) found.setCopyMode(copyMode as CopyMode);
    },
  };
}

async function mirror({ graph, blockJobs, journal }: StorageDaemon, args: JsonDict): Promise<void> {
  const source = graph.root(args['device'] as string);
  const target = graph.lookUp(args['target'] as string);
  const sync = args['sync'] as string;
  if (sync === 'incremental' || sync === 'bitmap') throw new BlockError('NOT_SUPPORTED', `Sync mode '${sync}' not supported`);
  const options: MirrorOptions = {
    jobId: (args['job-id'] ?? '') as string, source, target,
    sync: sync === 'top' && layerBelow(source) === null ? 'full' : sync as 'full' | 'top' | 'none',
    replaces: args['replaces'] as string | undefined,
    speed: number(args, 'speed'), granularity: number(args, 'granularity'), bufSize: number(args, 'buf-size'),
    onSourceError: args['on-source-error'] as OnError | undefined, onTargetError: args['on-target-error'] as OnError | undefined,
    filterNodeName: args['filter-node-name'] as string | undefined, copyMode: args['copy-mode'] as CopyMode | undefined,
    autoFinalize: args['auto-finalize'] as boolean | undefined, autoDismiss: args['auto-dismiss'] as boolean | undefined,
  };
  await (journal === null ? startMirror(graph, blockJobs, options) : startJournaledMirror(graph, blockJobs, journal, options));
  await settled();
}

function number(args: JsonDict, name: string): number | undefined {
  return args[name] === undefined ? undefined : Number(args[name]);
}

/** What the node overlays, filters left aside. */
function layerBelow(node: BlockNode): BlockNode | null {
  const below = node.driver.kind === 'filter' ? node.children.find(({ role }) => role === 'filtered')?.node : undefined;
  return below === undefined ? node.backing : layerBelow(below);
}
