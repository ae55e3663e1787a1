/** What QEMU and this engine must agree on: content, consistency and facts of an image. */
import { rmSync } from 'node:fs';
import { expect } from '@jest/globals';
import {
  chainStatus, openImage, type BlockNode, type CheckResult, type OpenImageOptions, type SnapshotInfo, type SnapshotTable, type VmStateArea,
} from '../../src/index.js';
import { run, runOk } from './run.js';
import type { Twin } from './twin.js';

const STEP = 1024 * 1024;
/** Disks up to this size are read whole; larger ones where either side has data. */
const READ_WHOLE = 128 * STEP;

export async function withImage<T>(path: string, options: OpenImageOptions, work: (node: BlockNode) => Promise<T>): Promise<T> {
  const node = await openImage(path, options);
  try {
    return await work(node);
  } finally {
    await node.close();
  }
}

/** `qemu-img check` finds nothing: no corruption, no leak. */
export async function qemuFindsNothing(path: string): Promise<void> {
  const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', path]);
  expect({ code, stdout: code === 0 ? '' : stdout, stderr }).toEqual({ code: 0, stdout: '', stderr: '' });
}

export async function qemuReadsAs(path: string, twin: Twin): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', path, twin.path])).toContain('Images are identical.');
}

export async function weFindNothing(path: string): Promise<CheckResult> {
  const result = await withImage(path, { readOnly: true, noBacking: true }, (node) => node.driver.check!({}));
  expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0, messages: [] });
  return result;
}

export async function weReadAs(path: string, twin: Twin, options: OpenImageOptions = {}): Promise<void> {
  await withImage(path, { readOnly: true, format: 'qcow2', ...options }, (node) => nodeReadsAs(node, twin));
}

export async function nodeReadsAs(node: BlockNode, twin: Twin): Promise<void> {
  expect(node.length()).toBe(twin.size);
  await withImage(twin.path, { format: 'raw', readOnly: true, forceShare: true }, async (raw) => {
    for (let offset = 0; offset < twin.size;) {
      const bytes = Math.min(STEP, twin.size - offset);
      const holes = twin.size <= READ_WHOLE ? 0 : await commonHole(node, raw, offset, twin.size - offset);
      if (holes === 0) await sameBytes(node, raw, offset, bytes);
      offset += holes === 0 ? bytes : holes;
    }
  });
}

/** Bytes from `offset` on that both sides say are zeros. */
async function commonHole(node: BlockNode, raw: BlockNode, offset: number, bytes: number): Promise<number> {
  let hole = bytes;
  for (const side of [node, raw]) {
    const status = await chainStatus(side, offset, hole);
    hole = Math.min(hole, status.bytes);
    if (status.kind !== 'data') continue;
    // preallocated clusters may be holes of the file
    const { node: layer, hostOffset } = status;
    const below = hostOffset === undefined ? null : await layer!.children[0]!.blockStatus(hostOffset, hole);
    if (below?.kind !== 'zero') return 0;
    hole = below.bytes;
  }
  return hole;
}

async function sameBytes(node: BlockNode, raw: BlockNode, offset: number, bytes: number): Promise<void> {
  const [ours, theirs] = [Buffer.alloc(bytes, 0xee), Buffer.alloc(bytes, 0xdd)];
  await node.read(offset, ours);
  await raw.read(offset, theirs);
  if (ours.equals(theirs)) return;
  const at = ours.findIndex((byte, index) => byte !== theirs[index]);
  throw new Error(`byte ${offset + at} of '${node.name}' reads as ${ours[at]}, not as ${theirs[at]}`);
}

/** Both read the image as the twin, and neither's check finds anything. */
export async function allAgree(path: string, twin: Twin): Promise<void> {
  await qemuFindsNothing(path);
  await weFindNothing(path);
  await qemuReadsAs(path, twin);
  await weReadAs(path, twin);
}

interface QemuSnapshot {
  readonly id: string;
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'date-nsec': number;
  readonly 'vm-clock-sec': number;
  readonly 'vm-clock-nsec': number;
  readonly icount?: number;
}

export interface QemuInfo {
  readonly 'virtual-size': number;
  readonly 'cluster-size': number;
  readonly 'actual-size': number;
  readonly 'backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'dirty-flag': boolean;
  readonly snapshots?: readonly QemuSnapshot[];
  readonly 'format-specific': { readonly data: Readonly<Record<string, unknown>> };
}

export async function qemuInfo(path: string): Promise<QemuInfo> {
  return JSON.parse(await runOk('qemu-img', ['info', '--output=json', '-f', 'qcow2', path])) as QemuInfo;
}

/** Size, allocation, features and snapshots of an image are told alike. */
export async function infoAgrees(path: string): Promise<QemuInfo> {
  const theirs = await qemuInfo(path);
  await withImage(path, { readOnly: true, noBacking: true }, async (node) => {
    expect(node.driver.describe!()).toMatchObject({
      clusterSize: theirs['cluster-size'], dirty: theirs['dirty-flag'], specific: theirs['format-specific'].data,
      backingFile: theirs['backing-filename'] ?? null, backingFormat: theirs['backing-filename-format'] ?? null,
    });
    expect(node.length()).toBe(theirs['virtual-size']);
    expect(await node.children[0]!.node.driver.allocatedBytes!()).toBe(theirs['actual-size']);
    expect(node.driver.snapshots!.list().map(asQemuShows)).toEqual(theirs.snapshots ?? []);
  });
  return theirs;
}

function asQemuShows(snapshot: SnapshotInfo): QemuSnapshot {
  const second = 1_000_000_000n;
  return {
    id: snapshot.id, name: snapshot.name, 'vm-state-size': snapshot.vmStateSize,
    'date-sec': snapshot.dateSeconds, 'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': Number(snapshot.vmClockNs / second), 'vm-clock-nsec': Number(snapshot.vmClockNs % second),
    ...(snapshot.icount === null ? {} : { icount: Number(snapshot.icount) }),
  };
}

export function snapshotsOf(node: BlockNode): SnapshotTable {
  return node.driver.snapshots!;
}

export function vmStateOf(node: BlockNode): VmStateArea {
  return node.driver.vmState!;
}

export function snapshotId(node: BlockNode, name: string): string {
  const found = snapshotsOf(node).list().find((snapshot) => snapshot.name === name);
  if (found === undefined) throw new Error(`'${node.name}' has no snapshot ${name}`);
  return found.id;
}

/** QEMU and we read the snapshot's disk as the twin. */
export async function snapshotReadsAs(path: string, name: string, twin: Twin): Promise<void> {
  const flat = `${path}.${name}.raw`;
  await runOk('qemu-img', ['convert', '-f', 'qcow2', '-l', `snapshot.name=${name}`, '-O', 'raw', path, flat]);
  expect(await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', flat, twin.path])).toContain('Images are identical.');
  rmSync(flat);
  await weReadAs(path, twin, { snapshot: name });
}
