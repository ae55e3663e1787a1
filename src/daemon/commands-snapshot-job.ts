/** QMP: internal snapshots over several nodes, as the jobs that QEMU's machines have for them. */
import { BlockError } from '../base/errors.js';
import { startSnapshotDelete, startSnapshotLoad, startSnapshotSave, type SnapshotJobOptions } from '../job/snapshot-job.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { socketAddress } from './address.js';
import type { StorageDaemon } from './daemon.js';

export function snapshotJobCommands({ graph, jobs, clock }: StorageDaemon): CommandTable {
  const options = (args: JsonDict): SnapshotJobOptions => ({
    jobId: args['job-id'] as string, tag: args['tag'] as string, devices: args['devices'] as readonly string[],
    vmstate: (args['vmstate'] ?? '') as string, vmStatePath: unixPath(args['vm-state'] as JsonDict | undefined), clock,
  });
  return {
    'snapshot-save': (args) => void startSnapshotSave(graph, jobs, options(args)),
    'snapshot-load': (args) => void startSnapshotLoad(graph, jobs, options(args)),
    'snapshot-delete': (args) => void startSnapshotDelete(graph, jobs, options(args)),
  };
}

function unixPath(given: JsonDict | undefined): string | undefined {
  if (given === undefined) return undefined;
  const address = socketAddress(given);
  if (address.type !== 'unix') throw new BlockError('NOT_SUPPORTED', `VM state goes over Unix sockets, not over sockets of type '${address.type}'`);
  return address.path;
}
