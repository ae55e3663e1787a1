/**
 * A snapshot of a running QEMU: stop, take the RAM state by a migration, snapshot every writable disk, cont. QEMU keeps
 * the write locks of its images until the migration has completed, so the state waits in a spool file until then.
 */
import { chown, mkdtemp, realpath, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { QmpClient } from '../qmp/client.js';
import { migrateInto, whileStopped } from '../vmstate/qemu-control.js';
import { snapshotImages, writableDisks } from '../vmstate/qemu-disks.js';
import { SocketInput } from '../vmstate/sources.js';
import { Spool } from '../vmstate/spool.js';
import { createFromSpool, refuseInVain, storeStream, type CreatedSnapshot, type CreateSnapshotRequest } from './snapshot-create.js';

export async function createFromQemu(qmpPath: string, request: CreateSnapshotRequest): Promise<CreatedSnapshot> {
  const qmp = await QmpClient.connect(qmpPath, { signal: request.signal });
  try {
    const filenames = await allImages(qmp, [request.image, ...request.also ?? []]);
    await refuseInVain(filenames, request);
    return await whileStopped(qmp, () => saveAndSnapshot(qmp, filenames, request));
  } finally {
    qmp.close();
  }
}

/** What was named, then the machine's other writable disks: a snapshot without one of them would be another machine. */
async function allImages(qmp: QmpClient, named: readonly string[]): Promise<string[]> {
  const disks = (await writableDisks(qmp)).length === 0 ? [] : await snapshotImages(qmp);
  const known = new Set(await Promise.all(named.map(realName)));
  const all = [...named];
  for (const disk of disks) {
    const real = await realName(disk);
    if (!known.has(real)) all.push(disk);
    known.add(real);
  }
  return all;
}

function realName(filename: string): Promise<string> {
  return realpath(filename).catch(() => path.resolve(filename));
}

async function saveAndSnapshot(qmp: QmpClient, filenames: readonly string[], request: CreateSnapshotRequest): Promise<CreatedSnapshot> {
  const spool = await Spool.beside(request.image, { direct: true });
  try {
    const bytes = await migrateToSpool(qmp, spool, request);
    return await createFromSpool(spool, bytes, filenames, request);
  } finally {
    await spool.close();
  }
}

async function migrateToSpool(qmp: QmpClient, spool: Spool, request: CreateSnapshotRequest): Promise<number> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'quiesce-'));
  try {
    const input = await SocketInput.listen(path.join(directory, 'migration'), request.signal);
    try {
      await giveToPeer(qmp.path, [directory, input.path]);
      return await storeStream((into) => migrateInto(qmp, input, into), input.name, null, spool, request);
    } finally {
      await input.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** QEMU may run as another user than we: whoever owns its QMP socket may connect to ours. */
export async function giveToPeer(qmpPath: string, paths: readonly string[]): Promise<void> {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = await stat(qmpPath);
  for (const name of paths) await chown(name, uid, gid);
}
