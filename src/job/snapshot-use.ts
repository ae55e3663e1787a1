/** Snapshots that exist: load, extract, revert, list, delete. */
import { systemClock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { SnapshotInfo, VmStateSource } from '../block/driver.js';
import { VmStateReader } from '../vmstate/reader.js';
import { openVmStateOutput, sendState, type VmStateOutput } from '../vmstate/sinks.js';
import { drained } from '../block/drain.js';
import { isCovered, removeHalfMadeSets } from './half-made.js';
import { findSnapshot, ImageSet, refuseImageAsState, type OpenedImage, type SetOptions } from './image-set.js';
import { loadSet } from './load-set.js';
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
  return withSet(request, async (set) => {
    const snapshot = checkRevert(set, request.tag);
    const source = await openState(set.primary, request.tag);
    await send(source, request, async () => {
      await revertAll(set, request);
      await set.close();
    });
    return snapshot;
  });
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

/** Makes the snapshot's disks the active ones, all or none; its RAM state stays where it is. */
export async function revertSnapshot(request: UseSnapshotRequest): Promise<void> {
  await withSet(request, async (set) => {
    checkRevert(set, request.tag);
    await revertAll(set, request);
  });
}

/** Where one fails, the error names those that have lost it already: running it again goes on. */
export async function deleteSnapshot(request: UseSnapshotRequest): Promise<void> {
  await withSet(request, async ({ images }) => {
    const targets = images.map((image) => ({ image, snapshot: findSnapshot(image, request.tag) }));
    const changed: string[] = [];
    for (const { image, snapshot } of targets) {
      try {
        request.signal?.throwIfAborted();
        await image.node.drained(() => image.snapshots.delete(snapshot.id));
      } catch (error) {
        if (changed.length === 0) throw error;
        throw new BlockError(error instanceof BlockError ? error.code : 'IO', `${messageOf(error)}; already changed: ${changed.join(', ')}`, { cause: error });
      }
      changed.push(`'${image.filename}'`);
    }
  });
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

async function withSet<T>(request: UseSnapshotRequest, work: (set: ImageSet) => Promise<T>): Promise<T> {
  await recover(request);
  const set = await ImageSet.open([request.image, ...request.also ?? []], request);
  const done = await work(set).catch(async (error: unknown) => {
    await set.close().catch(() => undefined); // what went wrong first says more
    throw error;
  });
  await set.close();
  return done;
}

/** Every image has the snapshot and can go back to it. Returns that of the first. */
function checkRevert({ images, primary }: ImageSet, tag: string): SnapshotInfo {
  for (const image of images) {
    image.snapshots.checkApply?.();
    findSnapshot(image, tag);
  }
  return findSnapshot(primary, tag);
}

async function revertAll({ images }: ImageSet, { tag, signal, onWarning }: UseSnapshotRequest): Promise<void> {
  signal?.throwIfAborted();
  await isCovered(images.map(({ filename }) => filename), onWarning ?? (() => {}));
  const targets = images.map(({ node, snapshots, filename }) => ({ node, table: snapshots, filename }));
  await drained(images.map(({ node }) => node), () => loadSet(targets, tag, systemClock));
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
