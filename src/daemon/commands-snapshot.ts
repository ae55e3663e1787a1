/** QMP: internal snapshots of live disks. */
import { BlockError } from '../base/errors.js';
import type { SnapshotInfo, SnapshotTable } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { snapshotInfo } from '../image/info.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import type { PreparedAction } from './transaction.js';

export function snapshotCommands(daemon: StorageDaemon): CommandTable {
  return {
    'blockdev-snapshot-internal-sync': async (args) => { await createSnapshot(daemon, args); },
    'blockdev-snapshot-delete-internal-sync': (args) => deleteSnapshot(daemon, args),
  };
}

export async function prepareInternalSnapshot(daemon: StorageDaemon, args: JsonDict): Promise<PreparedAction> {
  const { node, snapshot } = await createSnapshot(daemon, args);
  return { abort: () => node.driver.snapshots!.delete(snapshot.id) };
}

/** Drains the node: what the snapshot holds is what had been answered, and nothing of what had not begun. */
async function createSnapshot(daemon: StorageDaemon, { device, name }: JsonDict): Promise<{ node: BlockNode; snapshot: SnapshotInfo }> {
  const node = daemon.graph.lookUp(device as string);
  const called = device as string;
  if (node.readOnly) throw new BlockError('READ_ONLY', `Device '${called}' is read only`);
  const table = node.driver.snapshots;
  if (table === undefined) throw new BlockError('NOT_SUPPORTED', `Block format '${node.driver.formatName}' used by device '${called}' does not support internal snapshots`);
  if (name === '') throw new BlockError('INVALID_ARGUMENT', 'Name is empty');
  if (table.list().some((snapshot) => snapshot.name === name)) {
    throw new BlockError('EXISTS', `Snapshot with name '${name as string}' already exists on device '${called}'`);
  }
  const nowMs = daemon.clock.wallMs();
  const seconds = Math.floor(nowMs / 1000);
  const nanoseconds = Math.floor((nowMs - seconds * 1000) * 1e6);
  const snapshot = await node.drained(() => table.create({
    name: name as string, vmStateSize: 0, dateSeconds: seconds, dateNanoseconds: nanoseconds,
    vmClockNs: BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds),
  }));
  return { node, snapshot };
}

async function deleteSnapshot({ graph }: StorageDaemon, { device, id, name }: JsonDict): Promise<JsonDict> {
  const node = graph.lookUp(device as string);
  if (id === undefined && name === undefined) throw new BlockError('INVALID_ARGUMENT', 'Name or id must be provided');
  const table = node.driver.snapshots;
  if (table === undefined) throw new BlockError('NOT_SUPPORTED', 'Failed to get a snapshot list: Operation not supported');
  const found = find(table, id as string | undefined, name as string | undefined);
  if (found === undefined) {
    const called = (value: unknown): string => (value === undefined ? 'null' : value as string);
    throw new BlockError('NOT_FOUND', `Snapshot with id '${called(id)}' and name '${called(name)}' does not exist on device '${device as string}'`);
  }
  await node.drained(() => table.delete(found.id));
  return snapshotInfo(found);
}

function find(table: SnapshotTable, id: string | undefined, name: string | undefined): SnapshotInfo | undefined {
  return table.list().find((snapshot) => (id === undefined || snapshot.id === id) && (name === undefined || snapshot.name === name));
}
