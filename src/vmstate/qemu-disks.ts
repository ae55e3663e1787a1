/** The disks of a running QEMU, as far as a snapshot must know them. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import type { QmpClient } from '../qmp/client.js';
import { expectList, isObject, type JsonObject } from '../qmp/wire.js';
import { BlockError } from '../base/errors.js';

export interface MachineDisk {
  /** How QEMU calls the device: `virtio0`, `pflash0`, `/machine/peripheral/disk0`. */
  readonly name: string;
  readonly nodeName: string;
  /** The driver of its top node: `qcow2`, `raw`, `throttle`, … */
  readonly driver: string;
  /** As QEMU was told it; relative to QEMU's directory where it is relative. */
  readonly file: string;
}

/** Every disk that the guest can write; empty drives and read-only media do not count. */
export async function writableDisks(qmp: QmpClient): Promise<MachineDisk[]> {
  const devices = expectList('query-block', await qmp.execute('query-block'));
  return devices.flatMap((device) => {
    const medium = device['inserted'];
    return isObject(medium) && medium['ro'] !== true ? [decodeDisk(device, medium)] : [];
  });
}

/**
 * The absolute paths of the images of all writable disks, in QEMU's order. Throws, naming every disk that cannot hold a
 * snapshot: what is reverted without one of its disks would be another machine.
 */
export async function snapshotImages(qmp: QmpClient): Promise<string[]> {
  const disks = await writableDisks(qmp);
  const unfit = disks.filter((disk) => !canHoldSnapshot(disk));
  if (unfit.length > 0) {
    const names = unfit.map((disk) => `'${disk.name}' (${disk.driver}, ${disk.file})`).join(', ');
    throw new BlockError('NOT_SUPPORTED', `the machine at '${qmp.path}' writes to what cannot hold a snapshot, expected qcow2 files: ${names}`);
  }
  if (disks.length === 0) throw new BlockError('NOT_SUPPORTED', `the machine at '${qmp.path}' has no writable disk to hold a snapshot`);
  const directory = disks.every((disk) => isAbsolute(disk.file)) ? null : await machineDirectory(qmp.path);
  return disks.map((disk) => absolutePath(disk, directory));
}

function decodeDisk(device: JsonObject, medium: JsonObject): MachineDisk {
  const text = (value: unknown): string => typeof value === 'string' ? value : '';
  const nodeName = text(medium['node-name']);
  return {
    name: text(device['device']) || text(device['qdev']) || nodeName,
    nodeName,
    driver: text(medium['drv']),
    file: text(medium['file']),
  };
}

/** A file name that is a URL or `json:{…}` is no path that we could open. */
function canHoldSnapshot(disk: MachineDisk): boolean {
  return disk.driver === 'qcow2' && disk.file !== '' && !/^[a-z0-9+.-]+:/i.test(disk.file);
}

function absolutePath(disk: MachineDisk, directory: string | null): string {
  if (isAbsolute(disk.file)) return disk.file;
  if (directory !== null) return resolve(directory, disk.file);
  throw new BlockError('NOT_SUPPORTED', `disk '${disk.name}' has the relative name '${disk.file}', and QEMU's directory cannot be found out: give QEMU absolute names`);
}

/** The working directory of the process that listens at `path`, or null where the kernel does not tell us. */
async function machineDirectory(path: string): Promise<string | null> {
  const sockets = await socketsBoundTo(path);
  for (const pid of await listDirectory('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of await listDirectory(`/proc/${pid}/fd`)) {
      const target = await readLink(join('/proc', pid, 'fd', fd));
      if (target !== null && sockets.has(target)) return readLink(`/proc/${pid}/cwd`);
    }
  }
  return null;
}

/** As they appear in /proc/PID/fd: `socket:[inode]`. */
async function socketsBoundTo(path: string): Promise<Set<string>> {
  const table = await readFile('/proc/net/unix', 'utf8').catch(() => '');
  const names = [path, resolve(path)];
  const fields = table.split('\n').map((line) => line.trim().split(/\s+/));
  return new Set(fields.filter((field) => names.includes(field.slice(7).join(' '))).map((field) => `socket:[${field[6]}]`));
}

async function listDirectory(path: string): Promise<string[]> {
  return readdir(path).catch(() => []);
}

async function readLink(path: string): Promise<string | null> {
  return readlink(path).catch(() => null);
}
