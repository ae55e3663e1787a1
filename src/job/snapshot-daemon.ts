/** A snapshot of a live disk: a storage daemon of ours holds the image, and is asked over its QMP socket. */
import { systemClock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { QmpClient, QmpError } from '../qmp/client.js';
import { expectList, expectObject, expectText, isObject, type JsonObject } from '../qmp/wire.js';
import { checkSettled, migrateTo, whileStopped } from '../vmstate/qemu-control.js';
import { writableDisks } from '../vmstate/qemu-disks.js';
import { openVmStateOutput } from '../vmstate/sinks.js';
import { openVmStateInput } from '../vmstate/sources.js';
import { refuseImageAsState } from './image-set.js';
import type { OnProgress } from './snapshot-create.js';
import { giveToPeer } from './snapshot-qemu.js';
import { StateRelay } from './state-relay.js';

export interface DaemonSnapshotRequest {
  /** The daemon's QMP socket. */
  readonly daemon: string;
  readonly nodeName: string;
  /** More nodes, which get the same snapshot at the same moment, or none of them does. */
  readonly also?: readonly string[] | undefined;
  readonly tag: string;
  /** A path, `-`, `unix:PATH`, or `qmp:PATH` of a running machine whose disk is the node; left out = disk only. */
  readonly vmState?: string | undefined;
  readonly replace?: boolean | undefined;
  readonly chunkSize?: number | undefined;
  readonly depth?: number | undefined;
  readonly vmClockNs?: bigint | undefined;
  readonly icount?: bigint | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  readonly onReady?: ((source: string) => void) | undefined;
}

export interface DaemonSnapshot {
  /** QEMU's SnapshotInfo, as the daemon sent it. */
  readonly snapshot: JsonObject;
  /** The same of the other nodes, in their order. */
  readonly also: readonly JsonObject[];
  readonly vmStateSize: number;
  /** How long writes to the disk had to wait. */
  readonly pauseMs: number;
  /** How long the machine stood still, where `vmState` is a running one. */
  readonly stoppedMs: number | null;
}

export async function createOnDaemon(request: DaemonSnapshotRequest): Promise<DaemonSnapshot> {
  const qmp = await QmpClient.connect(request.daemon, { signal: request.signal });
  try {
    const daemon = new Daemon(qmp, request);
    const { vmState } = request;
    if (vmState === undefined) return await daemon.create(null);
    if (vmState.startsWith('qmp:')) return await ofRunningMachine(vmState.slice('qmp:'.length), daemon, request);
    return await withStream(vmState, daemon, request);
  } finally {
    qmp.close();
  }
}

/** The daemon's side of one snapshot. */
class Daemon {
  readonly #qmp: QmpClient;
  readonly #request: DaemonSnapshotRequest;

  constructor(qmp: QmpClient, request: DaemonSnapshotRequest) {
    this.#qmp = qmp;
    this.#request = request;
  }

  /** The files below the nodes, where they have any. */
  async filenames(): Promise<string[]> {
    const nodes = expectList('query-named-block-nodes', await this.#execute('query-named-block-nodes', { flat: true }));
    const wanted = [this.#request.nodeName, ...this.#request.also ?? []];
    return nodes.filter((node) => wanted.includes(String(node['node-name']))).map(({ file }) => file).filter((file) => typeof file === 'string');
  }

  /** The path of a socket that waits for the RAM state. */
  async receive(): Promise<string> {
    const { chunkSize, depth } = this.#request;
    const reply = await this.#execute('x-quiesce-vm-state-receive', {
      ...this.#names(), ...chunkSize === undefined ? {} : { 'chunk-size': chunkSize }, ...depth === undefined ? {} : { depth },
    });
    return expectText('x-quiesce-vm-state-receive', expectObject('x-quiesce-vm-state-receive', reply), 'path');
  }

  /** Runs `send`, and takes the snapshot with what it has sent. Whatever fails, no state is left behind; the daemon's reason counts more than its sender's. */
  async withState(send: (path: string) => Promise<number | null>): Promise<DaemonSnapshot> {
    const path = await this.receive();
    let bytes: number | null;
    try {
      bytes = await send(path);
      this.#request.signal?.throwIfAborted();
    } catch (error) {
      throw await this.#cancel(error);
    }
    return this.create({ bytes });
  }

  /** `state`: what was sent; its length where that is known. */
  async create(state: { readonly bytes: number | null } | null): Promise<DaemonSnapshot> {
    const { vmClockNs, icount } = this.#request;
    const reply = expectObject('x-quiesce-snapshot-create', await this.#execute('x-quiesce-snapshot-create', {
      ...this.#names(),
      ...state === null ? {} : { 'take-vm-state': true, ...state.bytes === null ? {} : { 'vm-state-size': state.bytes } },
      ...vmClockNs === undefined ? {} : { 'vm-clock-nsec': vmClockNs },
      ...icount === undefined ? {} : { icount },
    }));
    const { snapshot, also = [] } = reply;
    if (!isObject(snapshot) || !Array.isArray(also) || !also.every(isObject) || also.length !== (this.#request.also ?? []).length) throw new BlockError('PROTOCOL', `'${this.#qmp.path}' made a snapshot and did not describe it`);
    return { snapshot, also, vmStateSize: Number(snapshot['vm-state-size']), pauseMs: Number(reply['pause-nsec']) / 1e6, stoppedMs: null };
  }

  async #cancel(cause: unknown): Promise<unknown> {
    const reply = await this.#execute('x-quiesce-vm-state-cancel', { 'node-name': this.#request.nodeName }).catch(() => null);
    if (this.#request.signal?.aborted === true || !isObject(reply) || typeof reply['error'] !== 'string') return cause;
    return new BlockError('PEER', `the daemon at '${this.#qmp.path}' could not take the VM state: ${reply['error']}`, { cause });
  }

  #names(): JsonObject {
    const { nodeName, also = [], tag, replace } = this.#request;
    return { 'node-name': nodeName, ...also.length > 0 ? { also } : {}, name: tag, ...replace === true ? { replace } : {} };
  }

  async #execute(command: string, args: JsonObject): Promise<unknown> {
    try {
      return await this.#qmp.execute(command, args);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      const why = error.errorClass === 'CommandNotFound' ? `it is no storage daemon of ours (${error.description})` : error.description;
      throw new BlockError('PEER', `the daemon at '${this.#qmp.path}' refused: ${why}`, { cause: error });
    }
  }
}

async function withStream(spec: string, daemon: Daemon, request: DaemonSnapshotRequest): Promise<DaemonSnapshot> {
  const { signal, onProgress } = request;
  await refuseImageAsState(spec, await daemon.filenames());
  const input = await openVmStateInput(spec, { signal });
  try {
    return await daemon.withState(async (path) => {
      const output = await openVmStateOutput(`unix:${path}`, { signal });
      try {
        const relay = new StateRelay(output, (done) => onProgress?.('receive', done, input.size));
        request.onReady?.(input.name);
        await input.pump(relay);
        return await relay.finish();
      } finally {
        await output.abort();
      }
    });
  } finally {
    await input.close();
  }
}

/** The machine's disk is the daemon's, so it holds no lock that would be in the way, and the state goes right into the image. */
async function ofRunningMachine(path: string, daemon: Daemon, { signal, nodeName, also = [] }: DaemonSnapshotRequest): Promise<DaemonSnapshot> {
  const machine = await QmpClient.connect(path, { signal });
  try {
    const { running } = await checkSettled(machine);
    await refuseOtherDisks(machine, [nodeName, ...also]);
    let since = 0;
    const done = await whileStopped(machine, () => {
      since = systemClock.monotonicMs();
      return daemon.withState(async (socket) => {
        await giveToPeer(path, [socket.slice(0, socket.lastIndexOf('/')), socket]);
        await migrateTo(machine, { path: socket, receive: async () => 0, close: async () => {} }, signal);
        return null;
      });
    });
    return { ...done, stoppedMs: running ? systemClock.monotonicMs() - since : null };
  } finally {
    machine.close();
  }
}

/** What is reverted without one of its disks would be another machine. */
async function refuseOtherDisks(machine: QmpClient, nodeNames: readonly string[]): Promise<void> {
  const disks = await writableDisks(machine);
  if (disks.length === nodeNames.length && disks.every(({ file }) => /^(json:.*"nbd"|nbd[+:])/.test(file))) return;
  const found = disks.map((disk) => `'${disk.name}' (${disk.driver}, ${disk.file})`).join(', ');
  const wanted = nodeNames.length === 1 ? `one disk, an export of node '${nodeNames[0]!}'` : `${nodeNames.length} disks, exports of nodes ${nodeNames.map((name) => `'${name}'`).join(', ')}`;
  throw new BlockError('NOT_SUPPORTED', `the machine at '${machine.path}' must write to ${wanted}, and writes to: ${found === '' ? 'none' : found}`);
}
