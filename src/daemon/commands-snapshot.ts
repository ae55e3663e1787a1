/** QMP: snapshots of live disks, inside the image and as a new image on top. */
import { BlockError } from '../base/errors.js';
import type { SnapshotInfo, SnapshotTable } from '../block/driver.js';
import { refuseBlocked } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { openBlockdev } from '../image/blockdev.js';
import { imageOptions } from '../image/image-name.js';
import { snapshotInfo } from '../image/info.js';
import { whileWritable } from '../image/read-only.js';
import { refuseWhileReceiving } from '../job/incoming-state.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import { makeOverlayFile } from './overlay-file.js';
import { putOverlay, refuseAsOverlay, refuseOverlayOn } from './overlay.js';
import type { PreparedAction } from './transaction.js';

export function snapshotCommands(daemon: StorageDaemon): CommandTable {
  return {
    'blockdev-snapshot-delete-internal-sync': (args) => deleteSnapshot(daemon, args),
    'change-backing-file': (args) => changeBackingFile(daemon, args),
  };
}

export async function prepareInternalSnapshot(daemon: StorageDaemon, args: JsonDict): Promise<PreparedAction> {
  const { node, snapshot } = await createSnapshot(daemon, args);
  return { abort: () => node.driver.snapshots!.delete(snapshot.id) };
}

/** Puts a node that is open over another one. */
export async function prepareOverlay({ graph }: StorageDaemon, { node, overlay }: JsonDict): Promise<PreparedAction> {
  const below = graph.lookUp(node as string);
  refuseOverlayOn(below);
  const top = graph.lookUp(overlay as string);
  refuseAsOverlay(top);
  const done = await putOverlay(graph, top, below);
  return { commit: () => done.settle(), abort: () => done.undo() };
}

/** Makes a new image, or opens one that is there, and puts it over a node. */
export async function prepareNewOverlay(daemon: StorageDaemon, args: JsonDict): Promise<PreparedAction> {
  const { graph } = daemon;
  const { device = '', 'node-name': nodeName = '', 'snapshot-file': filename, 'snapshot-node-name': wanted, format = 'qcow2', mode } = args;
  const below = graph.find(nodeName as string);
  if (below === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='${device as string}' nor node-name='${nodeName as string}'`);
  if (nodeName !== '' && wanted === undefined) throw new BlockError('INVALID_ARGUMENT', 'New overlay node-name missing');
  if (graph.find(wanted as string) !== undefined) throw new BlockError('EXISTS', 'New overlay node-name already in use');
  refuseOverlayOn(below);
  if (mode !== 'existing') await makeOverlayFile(below, filename as string, format as string, (line) => daemon.say('output', line));
  const top = await openBlockdev(graph, {
    driver: format as string, 'node-name': wanted as string, ...Object.fromEntries(await imageOptions(filename as string)), ...(format === 'qcow2' ? { backing: null } : {}),
    'cache.direct': below.direct, 'cache.no-flush': below.noFlush, discard: below.discardMode,
  }, daemon.blockdevContext);
  try {
    refuseAsOverlay(top);
    const done = await putOverlay(graph, top, below);
    return {
      commit: async () => {
        await done.settle();
        await letGo(top);
      },
      abort: async () => {
        await done.undo();
        await letGo(top);
      },
    };
  } catch (error) {
    await graph.remove(top.nodeName);
    throw error;
  }
}

/** Only its users hold the new node: without any it closes. */
async function letGo(node: BlockNode): Promise<void> {
  node.pinned = false;
  if (node.parents.size === 0) await node.close();
}

async function changeBackingFile({ graph }: StorageDaemon, { device, 'image-node-name': imageName, 'backing-file': backing }: JsonDict): Promise<void> {
  graph.root(device as string);
  const node = graph.find(imageName as string);
  if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='' nor node-name='${imageName as string}'`);
  if (node.backing === null) throw new BlockError('INVALID_ARGUMENT', 'not allowing backing file change on an image without a backing file');
  const { changeBackingFile: change } = node.driver;
  if (change === undefined) throw new BlockError('NOT_SUPPORTED', `Could not change backing file to '${backing as string}': Operation not supported`);
  // QEMU records the image's own format as that of the file below; so do we, for the image must be the same afterwards
  await whileWritable(graph, node, () => node.drained(() => change(backing as string, node.driver.formatName)));
  if (node.origin !== null) node.origin.autoBacking = backing as string;
}

/** Drains the node: what the snapshot holds is what had been answered, and nothing of what had not begun. */
async function createSnapshot(daemon: StorageDaemon, { device, name }: JsonDict): Promise<{ node: BlockNode; snapshot: SnapshotInfo }> {
  const node = daemon.graph.root(device as string);
  const called = device as string;
  refuseBlocked(node);
  if (node.readOnly) throw new BlockError('READ_ONLY', `Device '${called}' is read only`);
  const table = node.driver.snapshots;
  if (table === undefined) throw new BlockError('NOT_SUPPORTED', `Block format '${node.driver.formatName}' used by device '${called}' does not support internal snapshots`);
  refuseWhileReceiving(node);
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
  const node = graph.root(device as string);
  if (id === undefined && name === undefined) throw new BlockError('INVALID_ARGUMENT', 'Name or id must be provided');
  refuseBlocked(node);
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
