/**
 * Mirrors a disk that another process has open, over its QMP: a daemon of ours, which steers itself, or QEMU (a machine or
 * qemu-storage-daemon), whose own job is steered from here.
 */
import { rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { systemClock, type Clock } from '../../base/clock.js';
import { syncDirectory } from '../../base/directory.js';
import { BlockError, messageOf } from '../../base/errors.js';
import { formatByName, type FormatName } from '../../image/formats.js';
import { treeInName } from '../../image/image-name.js';
import { createImage, type CreateImageOptions } from '../../image/open.js';
import { isFileName } from '../../image/tree-name.js';
import { isNbdName } from '../../nbd/name.js';
import { parseNbdName } from '../../nbd/uri.js';
import { QmpClient, QmpError } from '../../qmp/client.js';
import { expectList, type JsonObject } from '../../qmp/wire.js';
import { giveToPeer } from '../snapshot-qemu.js';
import type { MirrorSync } from './begin.js';
import type { ControllerOptions } from './controller.js';
import { readProgress, type MirrorProgress } from './progress.js';
import { findDevice } from './qemu-throttle.js';
import { steerOurs, steerQemu, type Steering } from './steering.js';
import type { CopyMode } from './state.js';
import { imageBelow, onTopOf, refuseRelative, refuseToMake } from './sync-target.js';

export interface MirrorOverQmpRequest {
  /** The QMP socket of who has the source open. */
  readonly qmp: string;
  /** A node; of a machine also a device: its id, its name or its path. */
  readonly source: string;
  /** A node, the name of an NBD export without TLS, or a file. */
  readonly target: string;
  /**
   * Default `full`, or `incremental` with a bitmap. With `top` a target that is made is an overlay of what the source is one of;
   * `none` without `pivot` goes on until `signal` ends it, in order: the target then has all that was written since the start.
   */
  readonly sync?: MirrorSync | undefined;
  /** Of the source, for sync modes `bitmap` and `incremental`. Of our daemons only. */
  readonly bitmap?: string | undefined;
  /** Of a target that is no node. Default: qcow2 for a name that ends so, else raw. */
  readonly targetFormat?: FormatName | undefined;
  /** Make a target that is a file (default), and refuse where there is one; false writes into what is there, which must be as large. */
  readonly createTarget?: boolean | undefined;
  /** At the end the users of the source go on with the target. Default: the target stays as the source was at one moment. */
  readonly pivot?: boolean | undefined;
  /** Default `auto`. */
  readonly copyMode?: CopyMode | 'auto' | undefined;
  readonly convergence?: ControllerOptions | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  /** As of `MirrorOptions`; how many operations may be in flight is for our daemons only. */
  readonly granularity?: number | undefined;
  readonly bufSize?: number | undefined;
  readonly operations?: number | undefined;
  /** Compare both at the end; where they differ, nobody goes on with the target. Of our daemons only. */
  readonly verify?: boolean | undefined;
  readonly jobId?: string | undefined;
  /** Cancels the job and waits for its end. */
  readonly signal?: AbortSignal | undefined;
  /** Ten times a second. */
  readonly onProgress?: ((progress: MirrorProgress) => void) | undefined;
  readonly onEvent?: ((event: string, data: JsonObject) => void) | undefined;
  /** What cannot be done as asked, but goes on without. */
  readonly onWarning?: ((message: string) => void) | undefined;
  readonly clock?: Clock | undefined;
}

export interface MirroredOverQmp {
  /** The node that was mirrored. */
  readonly source: string;
  /** Bytes that were copied. */
  readonly written: number;
  readonly pivoted: boolean;
}

const ASK_EVERY_MS = 100;
const REMOVE_TRIES = 20;

/** Resolves when the data is on the target's stable storage. What was made for a mirror that fails goes, unless it may be in use. */
export async function mirrorOverQmp(request: MirrorOverQmpRequest): Promise<MirroredOverQmp> {
  const qmp = await QmpClient.connect(request.qmp, { signal: request.signal });
  try {
    return await new MirrorOverQmp(qmp, request).run();
  } finally {
    qmp.close();
  }
}

export interface LiveDisk {
  /** As `query-named-block-nodes` tells of it. */
  readonly node: JsonObject;
  /** As `query-block` does; null where no device of a machine has it. */
  readonly device: JsonObject | null;
}

/** A disk that somebody has open, by its node's name or, of a machine, the id, name or path of its device. */
export async function findLiveDisk(qmp: QmpClient, name: string): Promise<LiveDisk> {
  const device = await findDevice(qmp, name);
  const nodeName = device === null ? name : (device['inserted'] as JsonObject)['node-name'];
  const node = (await nodesOf(qmp)).find((one) => one['node-name'] === nodeName);
  if (node === undefined) throw new BlockError('NOT_FOUND', `'${name}' is neither a node nor a device of '${qmp.path}'`);
  return { node, device };
}

async function nodesOf(qmp: QmpClient): Promise<JsonObject[]> {
  return expectList('query-named-block-nodes', await qmp.execute('query-named-block-nodes', { flat: true }));
}

class MirrorOverQmp {
  readonly #qmp: QmpClient;
  readonly #request: MirrorOverQmpRequest;
  readonly #clock: Clock;
  readonly #jobId: string;
  readonly #sync: MirrorSync;
  #steering: Steering | null = null;
  /** Made for this mirror. */
  #file: string | null = null;
  #node: string | null = null;
  /** `unknown`: the job was started, and nobody has told how it ended. */
  #outcome: 'none' | 'unknown' | 'failed' | 'completed' = 'none';
  #end: { readonly name: string; readonly data: JsonObject } | null = null;
  #ready = false;
  #warned = false;
  #wake = new AbortController();

  constructor(qmp: QmpClient, request: MirrorOverQmpRequest) {
    this.#qmp = qmp;
    this.#request = request;
    this.#clock = request.clock ?? systemClock;
    this.#jobId = request.jobId ?? `mirror-${process.pid}`;
    this.#sync = request.sync ?? (request.bitmap === undefined ? 'full' : 'incremental');
  }

  async run(): Promise<MirroredOverQmp> {
    const { pivot = false } = this.#request;
    try {
      const { node, device } = await findLiveDisk(this.#qmp, this.#request.source);
      const source = String(node['node-name']);
      this.#steering = await this.#takeSteering(node, device);
      const target = await this.#openTarget(node);
      const written = await this.#mirror(source, target);
      if (this.#file !== null) await syncDirectory(dirname(this.#file));
      return { source, written, pivoted: pivot };
    } catch (error) {
      throw this.#outcome === 'unknown' ? this.#uncertain(error) : error;
    } finally {
      await this.#cleanUp();
    }
  }

  #uncertain(error: unknown): BlockError {
    const left = this.#file === null ? '' : `, and '${this.#file}' is left as it is`;
    return new BlockError('PEER', `${messageOf(error)}; how the mirror '${this.#jobId}' ends is not known${left}`, { cause: error });
  }

  async #cleanUp(): Promise<void> {
    const [outcome, pivot] = [this.#outcome, this.#request.pivot === true];
    await this.#letGo();
    if (outcome === 'unknown') return;
    if (this.#node !== null && !(outcome === 'completed' && pivot)) await this.#removeNode(this.#node);
    if (this.#file !== null && outcome !== 'completed') await rm(this.#file, { force: true });
  }

  /** Users must not stay slowed down or stopped, whatever else fails. */
  async #letGo(): Promise<void> {
    await this.#steering?.end().catch((error: unknown) => this.#request.onWarning?.(`guests may still be slowed down or stopped: ${messageOf(error)}`));
    this.#steering = null;
  }

  /** The job holds it for a moment after it has told that it is over. */
  async #removeNode(name: string): Promise<void> {
    for (let tries = 0; tries < REMOVE_TRIES; tries++) {
      const removed = await this.#qmp.execute('blockdev-del', { 'node-name': name }).then(() => true, (error: unknown) => !(error instanceof QmpError));
      if (removed) return;
      await this.#clock.sleep(ASK_EVERY_MS / 2);
    }
  }

  async #takeSteering(node: JsonObject, device: JsonObject | null): Promise<Steering> {
    const { copyMode = 'auto', convergence = {}, verify = false, onEvent, onWarning } = this.#request;
    const commands = new Set(expectList('query-commands', await this.#qmp.execute('query-commands')).map(({ name }) => name));
    if (commands.has('x-quiesce-snapshot-create')) return steerOurs(copyMode, convergence, verify);
    if (verify) throw new BlockError('NOT_SUPPORTED', 'QEMU cannot compare the disks of a mirror, and nobody else can while it has them open');
    if (this.#request.operations !== undefined) throw new BlockError('NOT_SUPPORTED', "QEMU's mirrors have 16 operations in flight, always");
    if (this.#sync === 'bitmap' || this.#sync === 'incremental') throw new BlockError('NOT_SUPPORTED', "QEMU's mirrors do not copy by a bitmap, but with sync modes full, top and none");
    const parts = { qmp: this.#qmp, jobId: this.#jobId, canChange: commands.has('block-job-change'), clock: this.#clock, onEvent, onWarning };
    return steerQemu(parts, { node, device, copyMode, convergence });
  }

  /** The node to write to: one that is there, or one that is made of a name. */
  async #openTarget(source: JsonObject): Promise<string> {
    const { target, targetFormat = isNbdName(target) ? 'raw' : formatByName(target), createTarget = true } = this.#request;
    if ((await nodesOf(this.#qmp)).some((node) => node['node-name'] === target)) {
      if (this.#request.targetFormat !== undefined || !createTarget) throw new BlockError('INVALID_ARGUMENT', `'${target}' is a node, and no file to be made or opened in a format`);
      return target;
    }
    if (isFileName(target) && createTarget) await this.#createFile(resolve(target), targetFormat, source);
    const name = `target-${process.pid}`;
    const file = isNbdName(target) ? exportOptions(target) : { driver: 'file', filename: resolve(target) };
    const tree = treeInName(target) ?? { driver: targetFormat, discard: 'unmap', file: { ...file, discard: 'unmap' } };
    await this.#qmp.execute('blockdev-add', { ...tree, 'node-name': name });
    this.#node = name;
    return name;
  }

  async #createFile(name: string, format: FormatName, source: JsonObject): Promise<void> {
    if (await stat(name).then(() => true, () => false)) throw new BlockError('EXISTS', `'${this.#request.target}' is there already`, { node: name, errno: 'EEXIST' });
    refuseToMake(this.#request.target, this.#sync);
    const { 'virtual-size': size } = source['image'] as JsonObject;
    const below = this.#sync === 'top' ? await this.#imageBelow(source) : {};
    this.#file = name;
    await createImage(name, { format, size: Number(size), ...below });
    await giveToPeer(this.#qmp.path, [name]);
  }

  /** What the node reads where it holds nothing itself, for the new image. */
  async #imageBelow(source: JsonObject): Promise<Partial<CreateImageOptions>> {
    const nodes = expectList('query-named-block-nodes', await this.#qmp.execute('query-named-block-nodes'));
    const below = imageBelow(nodes.find((one) => one['node-name'] === source['node-name'])?.['image']);
    if (below === null) return {};
    const filename = String(below['filename']);
    await refuseRelative(filename, this.#request.source);
    return onTopOf(filename, String(below['format']));
  }

  /** Resolves with how much was copied, when it has completed. */
  async #mirror(source: string, target: string): Promise<number> {
    const { speed, bitmap, granularity, bufSize, operations, signal } = this.#request;
    this.#qmp.subscribe(({ name, data }) => {
      if (data['device'] !== this.#jobId && data['id'] !== this.#jobId) return;
      this.#request.onEvent?.(name, data);
      if (name === 'BLOCK_JOB_READY') this.#ready = true;
      else if (name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED') this.#end = { name, data };
      else return;
      this.#wake.abort();
    });
    signal?.throwIfAborted();
    await this.#qmp.execute('blockdev-mirror', {
      'job-id': this.#jobId, device: source, target, sync: this.#sync,
      ...given({ 'x-quiesce-bitmap': bitmap, speed, granularity, 'buf-size': bufSize, 'x-quiesce-operations': operations }), ...this.#steering!.args,
    }).catch((error: unknown) => {
      if (!(error instanceof QmpError)) this.#outcome = 'unknown';
      throw error;
    });
    this.#outcome = 'unknown';
    await this.#watch();
    await this.#letGo();
    return this.#verdict();
  }

  async #watch(): Promise<void> {
    const { signal, pivot = false } = this.#request;
    // nothing is to be copied: it is there for what is written while it runs
    const lasts = this.#sync === 'none' && !pivot;
    let asked: 'no' | 'end' | 'cancel' = 'no';
    while (this.#end === null) {
      this.#wake = new AbortController();
      if (signal?.aborted === true && asked !== 'cancel') {
        asked = 'cancel';
        const inOrder = lasts && this.#ready && await this.#attempt('block-job-cancel', { device: this.#jobId });
        if (!inOrder) await this.#attempt('block-job-cancel', { device: this.#jobId, force: true });
      } else if (this.#ready && asked === 'no' && !lasts) {
        asked = await this.#attempt(pivot ? 'block-job-complete' : 'block-job-cancel', { device: this.#jobId }) ? 'end' : 'no';
      }
      const job = expectList('query-block-jobs', await this.#qmp.execute('query-block-jobs')).find(({ device }) => device === this.#jobId);
      if (job !== undefined) {
        await this.#steer(job);
        this.#request.onProgress?.({ ...readProgress(job), ...this.#steering!.progress });
      }
      if (this.#end === null) await this.#clock.sleep(ASK_EVERY_MS, asked === 'cancel' || signal === undefined ? this.#wake.signal : AbortSignal.any([this.#wake.signal, signal]));
    }
  }

  /** What QEMU refuses does not end the mirror: the job may have ended meanwhile, and otherwise goes on without that. */
  async #steer(job: JsonObject): Promise<void> {
    try {
      await this.#steering!.look(job);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      if (this.#end === null && !this.#warned) this.#request.onWarning?.(messageOf(error));
      this.#warned ||= this.#end === null;
    }
  }

  /** A job that is about to end takes no command any more; one that is paused takes some later. */
  async #attempt(command: string, args: JsonObject): Promise<boolean> {
    return this.#qmp.execute(command, args).then(() => true, (error: unknown) => {
      if (error instanceof QmpError) return false;
      throw error;
    });
  }

  #verdict(): number {
    const { name, data } = this.#end!;
    const { error } = data;
    this.#outcome = name === 'BLOCK_JOB_COMPLETED' && error === undefined ? 'completed' : 'failed';
    if (this.#outcome === 'completed') return Number(data['len']);
    this.#request.signal?.throwIfAborted();
    if (name === 'BLOCK_JOB_CANCELLED') throw new BlockError('CANCELLED', `somebody cancelled the mirror '${this.#jobId}'`);
    throw new BlockError(String(error).startsWith('Source and target differ') ? 'CORRUPT' : 'PEER', `the mirror failed: ${String(error)}`);
  }
}

function given(args: Readonly<Record<string, string | number | undefined>>): JsonObject {
  return Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined)) as JsonObject;
}

function exportOptions(name: string): JsonObject {
  const { address, exportName, tls } = parseNbdName(name);
  if (tls !== null) throw new BlockError('NOT_SUPPORTED', 'a TLS target needs credentials where the mirror runs: add it as a node there, and name that');
  const server = address.type === 'unix' ? { type: 'unix', path: resolve(address.path) } : { type: 'inet', host: address.host, port: String(address.port) };
  return { driver: 'nbd', server, export: exportName };
}
