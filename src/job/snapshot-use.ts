/** Snapshots that exist: load, extract, revert, list, delete. */
import { BlockError, messageOf } from '../base/errors.js';
import type { SnapshotInfo, VmStateSource } from '../block/driver.js';
import { VmStateReader } from '../vmstate/reader.js';
import { openVmStateOutput, sendState, type VmStateOutput } from '../vmstate/sinks.js';
import { removeHalfMadeSets } from './half-made.js';
import { findSnapshot, ImageSet, refuseImageAsState, type OpenedImage, type SetOptions } from './image-set.js';
import type { OnProgress } from './snapshot-create.js';

export interface UseSnapshotRequest {
  readonly image: string;
  readonly tag: string;
  readonly also?: readonly string[] | undefined;
  readonly cache?: SetOptions['cache'];
  readonly backing?: SetOptions['backing'];
  readonly signal?: AbortSignal | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
}

export interface SendStateRequest extends UseSnapshotRequest {
  /** A path, `-` or `unix:PATH`. */
  readonly vmState: string;
  /** Bytes read ahead of the consumer; default 10 MiB. */
  readonly readAhead?: number | undefined;
  /** Reads in flight; default 1. */
  readonly depth?: number | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/**
 * Reverts the disks and streams the RAM state out. The receiver is connected and the state checked before anything
 * changes; the disks are reverted and the images closed just before the last byte goes out, since a machine opens them
 * as soon as it has the whole state. A stream that breaks before that leaves the disks as they were.
 */
export async function loadSnapshot(request: SendStateRequest): Promise<SnapshotInfo> {
  await refuseImageAsState(request.vmState, [request.image, ...request.also ?? []]);
  await recover(request);
  const set = await ImageSet.open([request.image, ...request.also ?? []], request);
  try {
    for (const { snapshots } of set.images) snapshots.checkApply?.();
    const targets = set.images.map((image) => ({ image, snapshot: findSnapshot(image, request.tag) }));
    const source = await openState(set.primary, request.tag);
    await send(source, request, async () => {
      await inTurn(targets, request, 'reverted', ({ image, snapshot }) => image.snapshots.apply(snapshot.id));
      await set.close();
    });
    return targets[0]!.snapshot;
  } finally {
    await set.close();
  }
}

/** The RAM state alone; the image is only read, with `forceShare` even beside the machine that uses it. */
export async function extractSnapshot(request: SendStateRequest & { readonly forceShare?: boolean | undefined }): Promise<SnapshotInfo> {
  await refuseImageAsState(request.vmState, [request.image]);
  const set = await ImageSet.open([request.image], { ...request, readOnly: true });
  try {
    await send(await openState(set.primary, request.tag), request);
    return findSnapshot(set.primary, request.tag);
  } finally {
    await set.close();
  }
}

/** Makes the snapshot's disks the active ones; its RAM state stays where it is. */
export async function revertSnapshot(request: UseSnapshotRequest): Promise<void> {
  await changeAll(request, 'reverted', ({ image, snapshot }) => image.snapshots.apply(snapshot.id), ({ snapshots }) => snapshots.checkApply?.());
}

export async function deleteSnapshot(request: UseSnapshotRequest): Promise<void> {
  await changeAll(request, 'changed', ({ image, snapshot }) => image.snapshots.delete(snapshot.id));
}

export async function listSnapshots(image: string, options: SetOptions = {}): Promise<readonly SnapshotInfo[]> {
  const set = await ImageSet.open([image], { cache: 'writeback', noBacking: true, ...options, readOnly: true });
  try {
    return set.primary.snapshots.list();
  } finally {
    await set.close();
  }
}

async function recover(request: UseSnapshotRequest): Promise<void> {
  await removeHalfMadeSets([request.image, ...request.also ?? []], request, request.onWarning ?? (() => {}));
}

interface Target {
  readonly image: OpenedImage;
  readonly snapshot: SnapshotInfo;
}

/** Every image must have the snapshot, and pass the check, before the first one changes. */
async function changeAll(
  request: UseSnapshotRequest, done: string, change: (target: Target) => Promise<void>, check?: (image: OpenedImage) => void,
): Promise<void> {
  await recover(request);
  const set = await ImageSet.open([request.image, ...request.also ?? []], request);
  try {
    for (const image of set.images) check?.(image);
    await inTurn(set.images.map((image) => ({ image, snapshot: findSnapshot(image, request.tag) })), request, done, change);
  } finally {
    await set.close();
  }
}

/** One image after the other; where one fails, the error names those that have changed already: running it again goes on. */
async function inTurn(targets: readonly Target[], request: UseSnapshotRequest, done: string, change: (target: Target) => Promise<void>): Promise<void> {
  const changed: string[] = [];
  for (const target of targets) {
    try {
      request.signal?.throwIfAborted();
      await target.image.node.drained(() => change(target));
    } catch (error) {
      if (changed.length === 0) throw error;
      throw new BlockError(error instanceof BlockError ? error.code : 'IO', `${messageOf(error)}; already ${done}: ${changed.join(', ')}`, { cause: error });
    }
    changed.push(`'${target.image.filename}'`);
  }
}

async function openState(image: OpenedImage, tag: string): Promise<VmStateSource> {
  const snapshot = findSnapshot(image, tag);
  if (snapshot.vmStateSize === 0) {
    throw new BlockError('NOT_FOUND', `snapshot '${tag}' of '${image.filename}' is disk-only and has no VM state (snapshot revert takes the disk back)`);
  }
  const source = await image.snapshots.openVmState(snapshot.id);
  await source.verify?.();
  return source;
}

async function send(source: VmStateSource, request: SendStateRequest, beforeLast?: () => Promise<void>): Promise<void> {
  const output = await openVmStateOutput(request.vmState, { signal: request.signal });
  const reader = new VmStateReader(source, { readAhead: request.readAhead, depth: request.depth, signal: request.signal });
  try {
    await sendState(reader, withProgress(output, source.size, request.onProgress), beforeLast);
    await output.finish();
  } finally {
    await reader.close();
    await output.abort();
  }
}

function withProgress(output: VmStateOutput, total: number, onProgress: OnProgress | undefined): VmStateOutput {
  if (onProgress === undefined) return output;
  let done = 0;
  return {
    name: output.name,
    heldBack: output.heldBack,
    write: async (data) => {
      await output.write(data);
      done += data.byteLength;
      onProgress('send', done, total);
    },
    settle: async () => output.settle?.(),
    finish: () => output.finish(),
    abort: () => output.abort(),
  };
}
