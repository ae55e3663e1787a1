/** `snapshot create`: RAM state in, then one snapshot over all images, all or none. */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { SnapshotInfo, VmStateArea } from '../block/driver.js';
import { checkStreamEnd } from '../vmstate/qemu-stream.js';
import { VmStateReader } from '../vmstate/reader.js';
import { openVmStateInput, type VmStateInput } from '../vmstate/sources.js';
import { Spool } from '../vmstate/spool.js';
import { VmStateWriter, type VmStateConsumer } from '../vmstate/writer.js';
import { halfMadeSnapshots, isCovered, removeHalfMadeSets } from './half-made.js';
import { isSame, SetNotes } from './set-notes.js';
import { ImageSet, refuseImageAsState, type OpenedImage, type SetOptions } from './image-set.js';

const LOCK_POLL_MS = 50;
const LOCK_WAIT_MS = 30_000;

export type OnProgress = (phase: 'receive' | 'store' | 'send', done: number, total: number | null) => void;

export interface CreateSnapshotRequest {
  readonly image: string;
  readonly tag: string;
  readonly also?: readonly string[] | undefined;
  /** A path, `-`, or `unix:PATH`; left out = disk only. See createFromQemu for a running machine. */
  readonly vmState?: string | undefined;
  readonly chunkSize?: number | undefined;
  readonly depth?: number | undefined;
  readonly cache?: SetOptions['cache'];
  readonly backing?: SetOptions['backing'];
  readonly vmClockNs?: bigint | undefined;
  readonly icount?: bigint | null | undefined;
  /** An older snapshot of that name goes, once the new one is durable. */
  readonly replace?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
  readonly onProgress?: OnProgress | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Everything is ready for the state to come; called with the name of its source, like `unix:/run/x`. */
  readonly onReady?: ((source: string) => void) | undefined;
}

export interface CreatedSnapshot {
  readonly images: readonly { readonly filename: string; readonly snapshot: SnapshotInfo }[];
  readonly vmStateSize: number;
}

export async function createSnapshot(request: CreateSnapshotRequest): Promise<CreatedSnapshot> {
  const filenames = [request.image, ...request.also ?? []];
  if (request.vmState === undefined) return finishSet(await openImages(filenames, request), request, 0);
  await refuseImageAsState(request.vmState, filenames);
  const input = await openVmStateInput(request.vmState, { signal: request.signal });
  try {
    const set = await openUnlessQemuHoldsIt(filenames, request);
    if (set === null) return await createThroughSpool(input, filenames, request);
    return await finishSet(set, request, (area) => receive(input, area, request));
  } finally {
    await input.close();
  }
}

async function openImages(filenames: readonly string[], request: CreateSnapshotRequest): Promise<ImageSet> {
  await removeHalfMadeSets(filenames, request, request.onWarning ?? (() => {}));
  return ImageSet.open(filenames, request);
}

/** Null where a machine that is about to send its state still holds the image: its lock goes only after the migration. */
async function openUnlessQemuHoldsIt(filenames: readonly string[], request: CreateSnapshotRequest): Promise<ImageSet | null> {
  try {
    return await openImages(filenames, request);
  } catch (error) {
    if (request.vmState!.startsWith('unix:') && isLocked(error)) return null;
    throw error;
  }
}

export function isLocked(error: unknown): boolean {
  return error instanceof BlockError && error.code === 'LOCKED';
}

async function createThroughSpool(input: VmStateInput, filenames: readonly string[], request: CreateSnapshotRequest): Promise<CreatedSnapshot> {
  await refuseInVain(filenames, request);
  const spool = await Spool.beside(request.image, { direct: true });
  try {
    const bytes = await receive(input, spool, request);
    return await createFromSpool(spool, bytes, filenames, request);
  } finally {
    await spool.close();
  }
}

/** The machine has sent everything and lets go of its images; the state moves from the spool into the first of them. */
export async function createFromSpool(
  spool: Spool, bytes: number, filenames: readonly string[], request: CreateSnapshotRequest,
): Promise<CreatedSnapshot> {
  const set = await openWhenFree(filenames, request);
  return finishSet(set, request, async (area) => {
    const reader = new VmStateReader(spool.source(bytes), { signal: request.signal });
    const writer = new VmStateWriter(area, request);
    try {
      for await (const chunk of reader) {
        await writer.write(chunk);
        request.onProgress?.('store', writer.bytesProduced, bytes);
      }
      return await writer.finish();
    } finally {
      await writer.abort();
      await reader.close();
    }
  });
}

async function openWhenFree(filenames: readonly string[], request: CreateSnapshotRequest): Promise<ImageSet> {
  const clock = request.clock ?? systemClock;
  const deadline = clock.monotonicMs() + LOCK_WAIT_MS;
  for (;;) {
    request.signal?.throwIfAborted();
    try {
      return await openImages(filenames, request);
    } catch (error) {
      if (!isLocked(error) || clock.monotonicMs() > deadline) throw error;
    }
    await clock.sleep(LOCK_POLL_MS);
  }
}

/** Before minutes of RAM are taken in vain; it is asked again once the images are open for writing. */
export async function refuseInVain(filenames: readonly string[], request: CreateSnapshotRequest): Promise<void> {
  const set = await ImageSet.open(filenames, { ...request, cache: 'writeback', readOnly: true, forceShare: true });
  try {
    const half = await halfMadeSnapshots(filenames);
    refuseName(set, request, (snapshot) => half.some((other) => isSame(snapshot, other)));
  } finally {
    await set.close();
  }
}

/** `willGo` tells of what an interrupted run left, which goes before the new snapshot is made. */
function refuseName(set: ImageSet, request: CreateSnapshotRequest, willGo: (snapshot: SnapshotInfo) => boolean = () => false): void {
  for (const { snapshots } of set.images) snapshots.checkNew(request.tag);
  if (request.replace === true) return;
  const taken = set.images.find(({ snapshots }) => snapshots.list().some((snapshot) => snapshot.name === request.tag && !willGo(snapshot)));
  if (taken !== undefined) throw new BlockError('EXISTS', `'${taken.filename}' already has a snapshot '${request.tag}' (--replace puts the new one in its place)`);
}

function receive(input: VmStateInput, area: VmStateArea, request: CreateSnapshotRequest): Promise<number> {
  request.onReady?.(input.name);
  return storeStream((into) => input.pump(into), input.name, input.size, area, request);
}

/** Pumps a whole stream into an area; the bytes produced, once all are stored and the end of the stream is right. */
export async function storeStream(
  pump: (into: VmStateConsumer) => Promise<number>, name: string, total: number | null, area: VmStateArea, request: CreateSnapshotRequest,
): Promise<number> {
  const writer = new VmStateWriter(area, request);
  try {
    await pump(withProgress(writer, total, request.onProgress));
    const bytes = await writer.finish();
    if (await checkStreamEnd(area, bytes) === 'empty') throw new BlockError('PROTOCOL', `'${name}' delivered no VM state: it ended without a byte`);
    return bytes;
  } finally {
    await writer.abort();
  }
}

function withProgress(writer: VmStateWriter, total: number | null, onProgress: OnProgress | undefined): VmStateConsumer {
  if (onProgress === undefined) return writer;
  return {
    space: () => writer.space(),
    advance: (bytes) => {
      writer.advance(bytes);
      onProgress('receive', writer.bytesProduced, total);
    },
    write: (data) => writer.write(data),
  };
}

type TakeState = (area: VmStateArea) => Promise<number>;

/** Fills the VM state, makes the snapshots, closes the images: success only after all three. */
async function finishSet(set: ImageSet, request: CreateSnapshotRequest, state: TakeState | 0): Promise<CreatedSnapshot> {
  try {
    refuseName(set, request);
    const area = set.primary.node.driver.vmState!;
    const vmStateSize = state === 0 ? 0 : await state(area);
    request.signal?.throwIfAborted();
    const created = await snapshotAll(set, request, vmStateSize);
    await afterwards(request.tag, async () => {
      if (request.replace === true) await deleteOlder(created, request.tag);
      await set.close();
    });
    return { images: created.map(({ image, snapshot }) => ({ filename: image.filename, snapshot })), vmStateSize };
  } finally {
    await set.close().catch(() => {}); // frees the state of a snapshot that was not made; the first error is the one to report
  }
}

/** The snapshot is durable: what fails now must not look as if it were not there. */
async function afterwards(tag: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new BlockError(error instanceof BlockError ? error.code : 'IO', `snapshot '${tag}' was made and is durable, but then: ${messageOf(error)}`, { cause: error });
  }
}

interface Created {
  readonly image: OpenedImage;
  readonly snapshot: SnapshotInfo;
}

async function snapshotAll(set: ImageSet, request: CreateSnapshotRequest, vmStateSize: number): Promise<Created[]> {
  const now = (request.clock ?? systemClock).wallMs();
  const date = { dateSeconds: Math.floor(now / 1000), dateNanoseconds: Math.round((now % 1000) * 1e6) };
  const filenames = set.images.map(({ filename }) => filename);
  const noted = filenames.length > 1 && await isCovered(filenames, request.onWarning ?? (() => {}));
  const notes = noted ? await SetNotes.begin(filenames, { tag: request.tag, ...date }) : null;
  const created: Created[] = [];
  try {
    // The image with the RAM state comes last: without it the others are worth nothing
    for (const image of set.images.toReversed()) {
      request.signal?.throwIfAborted();
      const snapshot = await image.node.drained(() => image.snapshots.create({
        name: request.tag, ...date, vmStateSize: image === set.primary ? vmStateSize : 0,
        vmClockNs: request.vmClockNs, icount: request.icount,
      }));
      created.unshift({ image, snapshot });
    }
    await notes?.commit();
    return created;
  } catch (error) {
    await undo(set, created, notes, request);
    throw error;
  }
}

/** The notes go only when every image is known to be without the snapshot: a write that failed may still have reached the disk. */
async function undo(set: ImageSet, created: readonly Created[], notes: SetNotes | null, request: CreateSnapshotRequest): Promise<void> {
  try {
    for (const { image, snapshot } of created) await image.node.drained(() => image.snapshots.delete(snapshot.id));
    for (const { node } of set.images) await node.flush();
    await notes?.withdraw();
  } catch (error) {
    const next = notes === null ? `'${request.image}' may have it or not` : 'the next run on these images removes what is left of it';
    request.onWarning?.(`snapshot '${request.tag}' could not be undone now (${messageOf(error)}): ${next}`);
  }
}

async function deleteOlder(created: readonly Created[], tag: string): Promise<void> {
  for (const { image, snapshot } of created) {
    const older = image.snapshots.list().filter(({ name, id }) => name === tag && id !== snapshot.id);
    for (const { id } of older) await image.node.drained(() => image.snapshots.delete(id));
  }
}
