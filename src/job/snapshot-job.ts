/**
 * Internal snapshots over the nodes of a graph as jobs, with QEMU's checks and texts (migration/savevm.c and
 * block/snapshot.c tell the same of a machine's disks): each is there on all nodes or on none.
 */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import { drained } from '../block/drain.js';
import type { SnapshotInfo, VmStateArea } from '../block/driver.js';
import { refuseAsBacking, refuseBlocked, type BlockGraph } from '../block/graph.js';
import { Permission } from '../block/permissions.js';
import { skipFilters } from '../image/chain.js';
import { VmStateReader } from '../vmstate/reader.js';
import { openVmStateOutput, sendState } from '../vmstate/sinks.js';
import { inWords, loadSet, moment } from './load-set.js';
import { IncomingState, refuseWhileReceiving } from './incoming-state.js';
import type { Job, JobContext, JobWork } from './job.js';
import type { JobTable } from './job-table.js';
import { createSnapshotSet, type SnapshotTarget } from './snapshot-set.js';

export interface SnapshotDeleteOptions {
  readonly jobId: string;
  /** The name of the snapshot. */
  readonly tag: string;
  /** Node-names; a node behind filters may be meant by their names. */
  readonly devices: readonly string[];
  readonly clock?: Clock | undefined;
}

export interface SnapshotJobOptions extends SnapshotDeleteOptions {
  /** The one of the devices that holds the RAM state. */
  readonly vmstate: string;
  /** A Unix socket: a save listens there for the machine that migrates to it, a load sends to the machine that waits there. Default: disks only. */
  readonly vmStatePath?: string | undefined;
}

interface Target extends SnapshotTarget {
  readonly area: VmStateArea;
}

export function startSnapshotSave(graph: BlockGraph, jobs: JobTable, options: SnapshotJobOptions): Job {
  const { tag, vmstate, vmStatePath, devices, clock = systemClock } = options;
  let made: readonly SnapshotInfo[] = [];
  let targets: readonly Target[] = [];
  // QEMU lets a tag pass that only some of the devices have, and makes a second one of the name there
  const save = async (context: JobContext): Promise<void> => {
    targets = findTargets(graph, devices);
    if (targets.some((target) => named(target, tag) !== undefined)) throw new BlockError('EXISTS', `Snapshot '${tag}' already exists in one or more devices`);
    targets = stateFirst(graph, targets, vmstate);
    for (const { table, node } of targets) {
      table.checkNew(tag);
      refuseWhileReceiving(node);
    }
    const create = async (vmStateSize: number): Promise<void> => {
      context.signal.throwIfAborted();
      made = (await createSnapshotSet(targets, { name: tag, vmStateSize, ...moment(clock) }, clock)).snapshots;
    };
    await (vmStatePath === undefined ? create(0) : receive(vmStatePath, targets[0]!, context.signal, create));
  };
  return start(graph, jobs, 'snapshot-save', options, {
    run: save,
    // cancelled after it was made
    abort: async () => {
      for (const [index, { id }] of made.entries()) await targets[index]!.node.drained(() => targets[index]!.table.delete(id));
    },
  });
}

export function startSnapshotLoad(graph: BlockGraph, jobs: JobTable, options: SnapshotJobOptions): Job {
  const { tag, vmstate, vmStatePath, devices, clock = systemClock } = options;
  const load = async ({ signal }: JobContext): Promise<void> => {
    const found = findTargets(graph, devices);
    if (found.some((target) => named(target, tag) === undefined)) throw new BlockError('NOT_FOUND', `Snapshot '${tag}' does not exist in one or more devices`);
    const targets = stateFirst(graph, found, vmstate);
    const check = (): void => { for (const target of targets) refuseLoad(target, tag); };
    check();
    const revert = (): Promise<void> => drained(targets.map(({ node }) => node), async () => {
      signal.throwIfAborted();
      check(); // much may have happened while the RAM went out
      await loadSet(targets, tag, clock);
    });
    await (vmStatePath === undefined ? revert() : send(vmStatePath, targets[0]!, tag, signal, revert));
  };
  return start(graph, jobs, 'snapshot-load', options, { run: load });
}

/** Devices without the snapshot are passed over, as by QEMU. */
export function startSnapshotDelete(graph: BlockGraph, jobs: JobTable, options: SnapshotDeleteOptions): Job {
  const remove = async ({ signal }: JobContext): Promise<void> => {
    const targets = findTargets(graph, options.devices);
    for (const { node } of targets) refuseWhileReceiving(node);
    const size = (target: Target): number => named(target, options.tag)?.vmStateSize ?? 0;
    // without the RAM state the others are worth nothing, so what an interrupted run leaves is no whole snapshot that lacks a disk
    for (const target of targets.toSorted((a, b) => size(b) - size(a))) {
      signal.throwIfAborted();
      const snapshot = named(target, options.tag);
      if (snapshot === undefined) continue;
      await inWords(`Could not delete snapshot '${options.tag}' on '${target.node.nodeName}': `, () => target.node.drained(() => target.table.delete(snapshot.id)));
    }
  };
  return start(graph, jobs, 'snapshot-delete', options, { run: remove });
}

/** Keeps the nodes that are there until the job is over, and tells of progress as QEMU does: nothing, then all. */
function start(graph: BlockGraph, jobs: JobTable, type: string, { jobId, devices, clock }: SnapshotDeleteOptions, work: JobWork): Job {
  const doors: BlockBackend[] = [];
  const job = jobs.create({
    id: jobId, type, autoDismiss: false, clock, ...work,
    completable: false,
    run: async (context) => {
      context.progress(0, 1);
      try {
        for (const name of new Set(devices)) {
          const node = graph.find(name);
          if (node !== undefined) doors.push(await graph.attach(node, { used: 0, shared: Permission.ALL }));
        }
        await work.run(context);
      } catch (error) {
        throw context.cancelled ? context.signal.reason : error;
      } finally {
        context.progress(1, 1);
      }
    },
    clean: async () => { for (const door of doors) await graph.detach(door); },
  });
  job.start();
  return job;
}

function findTargets(graph: BlockGraph, devices: readonly string[]): Target[] {
  if (devices.length === 0) throw new BlockError('INVALID_ARGUMENT', 'At least one device is required for snapshot');
  const nodes = devices.map((name) => {
    const node = graph.find(name);
    if (node === undefined) throw new BlockError('NOT_FOUND', `No block device node '${name}'`);
    return { name, node: skipFilters(node) };
  });
  const once = nodes.filter(({ node }, index) => nodes.findIndex((other) => other.node === node) === index);
  return once.map(({ name, node }) => {
    const { snapshots: table, vmState: area } = node.driver;
    if (node.readOnly || table === undefined || area === undefined) throw new BlockError('NOT_SUPPORTED', `Device '${name}' is writable but does not support snapshots`);
    return { node, table, area };
  });
}

/** With the one that holds the RAM state first. */
function stateFirst(graph: BlockGraph, targets: readonly Target[], vmstate: string): Target[] {
  const node = graph.find(vmstate);
  const first = node === undefined ? undefined : targets.find((target) => target.node === skipFilters(node));
  if (first === undefined) throw new BlockError('NOT_FOUND', `vmstate block device '${vmstate}' does not exist`);
  return [first, ...targets.filter((target) => target !== first)];
}

function named({ table }: SnapshotTarget, tag: string): SnapshotInfo | undefined {
  return table.list().findLast(({ name }) => name === tag);
}

/** Takes the RAM state of a machine that migrates to the socket; when it has all of it, the machine stands still. */
async function receive(path: string, target: Target, signal: AbortSignal, create: (bytes: number) => Promise<void>): Promise<void> {
  const state = await IncomingState.listenAt(path, target);
  const drop = (): void => void state.drop().catch(() => undefined);
  signal.addEventListener('abort', drop);
  try {
    signal.throwIfAborted();
    await create(await state.received());
  } finally {
    signal.removeEventListener('abort', drop);
    await state.drop();
  }
}

/** The disks are reverted before the last byte goes out: the machine uses them as soon as it has that. */
async function send(path: string, target: Target, tag: string, signal: AbortSignal, revert: () => Promise<void>): Promise<void> {
  const snapshot = named(target, tag)!;
  if (snapshot.vmStateSize === 0) throw new BlockError('NOT_FOUND', 'This is a disk-only snapshot. Revert to it  offline using qemu-img');
  const source = await target.table.openVmState(snapshot.id);
  await source.verify?.();
  const output = await openVmStateOutput(`unix:${path}`, { signal });
  const reader = new VmStateReader(source, { signal });
  try {
    await sendState(reader, output, revert);
    await output.finish();
  } finally {
    await reader.close();
    await output.abort();
  }
}

/** Who knows what the disk holds, or builds on it, would be deceived. */
function refuseLoad({ node, table }: Target, tag: string): void {
  refuseBlocked(node);
  refuseAsBacking(node);
  refuseWhileReceiving(node);
  if (node.bitmaps.size > 0) throw new BlockError('BUSY', `Could not load snapshot '${tag}' on '${node.nodeName}': Device has active dirty bitmaps`);
  table.checkApply?.();
}
