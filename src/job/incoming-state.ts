/**
 * RAM state that streams into an image whose disk is in use. It comes over a private socket, and the disk is not held up
 * meanwhile; the state is nobody's until a snapshot takes it, so a client that is gone leaves no snapshot.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { VmStateArea } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { checkStreamEnd } from '../vmstate/qemu-stream.js';
import { SocketInput } from '../vmstate/sources.js';
import { VmStateWriter } from '../vmstate/writer.js';

/** For what lies in buffers when the sender says that it has ended: other commands wait as long. */
const END_WAIT_MS = 30_000;

interface IncomingStateOptions {
  readonly chunkSize?: number | undefined;
  readonly depth?: number | undefined;
}

/** Where the state goes. */
export interface StateTarget {
  readonly node: BlockNode;
  readonly area: VmStateArea;
}

/** The nodes that receive one: there is place for one at a time. */
const receiving = new WeakSet<BlockNode>();

/** A snapshot takes or drops the state that is on its way into its image: another one must wait. */
export function refuseWhileReceiving(node: BlockNode): void {
  if (receiving.has(node)) throw new BlockError('BUSY', `Node '${node.nodeName}' is receiving VM state for another snapshot`);
}

export class IncomingState {
  readonly #target: StateTarget;
  /** Of a private socket. */
  readonly #directory: string | null;
  readonly #input: SocketInput;
  readonly #writer: VmStateWriter;
  readonly #pumped: Promise<number>;
  #failure: unknown = null;
  #dropping: Promise<void> | null = null;

  private constructor(target: StateTarget, directory: string | null, input: SocketInput, writer: VmStateWriter) {
    this.#target = target;
    this.#directory = directory;
    this.#input = input;
    this.#writer = writer;
    this.#pumped = input.pump(writer);
    this.#pumped.catch((error: unknown) => { this.#failure = error; });
  }

  /** Listens at a socket that only this user can reach. */
  static async listen(target: StateTarget, options: IncomingStateOptions): Promise<IncomingState> {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'quiesce-'));
    try {
      return await IncomingState.#at(path.join(directory, 'vm-state'), target, options, directory);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Listens at a socket that the client names. */
  static listenAt(socketPath: string, target: StateTarget): Promise<IncomingState> {
    return IncomingState.#at(socketPath, target, {}, null);
  }

  /** What lay in the image of an earlier try is dropped. */
  static async #at(socketPath: string, target: StateTarget, options: IncomingStateOptions, directory: string | null): Promise<IncomingState> {
    const { node, area } = target;
    refuseWhileReceiving(node);
    receiving.add(node);
    try {
      await area.discard();
      const input = await SocketInput.listen(socketPath);
      return new IncomingState(target, directory, input, new VmStateWriter(area, options));
    } catch (error) {
      receiving.delete(node);
      throw error;
    }
  }

  get path(): string { return this.#input.path; }
  /** Why no more of it can come, or null. */
  get failure(): string | null { return this.#failure === null ? null : messageOf(this.#failure); }

  /**
   * Its length, once all is stored and its end is right. `expected`: what the sender has sent; a sender that was killed
   * ends its stream too, and cannot say so.
   */
  async finish(expected: number | null, clock: Clock): Promise<number> {
    await this.#end(clock);
    return this.#settle(expected);
  }

  /** Its length, once the sender has ended, however long that takes; `drop` ends the wait. */
  async received(): Promise<number> {
    await this.#pumped;
    return this.#settle(null);
  }

  async #settle(expected: number | null): Promise<number> {
    const bytes = await this.#writer.finish();
    if (expected !== null && bytes !== expected) throw new BlockError('PROTOCOL', `${bytes} bytes of VM state came, and ${expected} were sent`);
    if (await checkStreamEnd(this.#target.area, bytes) === 'empty') throw new BlockError('PROTOCOL', 'no VM state came: its stream ended without a byte');
    return bytes;
  }

  async #end(clock: Clock): Promise<void> {
    if (this.#input.waiting) await eventsAtHand();
    if (this.#input.waiting) throw new BlockError('PROTOCOL', `no VM state came: nobody has connected to '${this.path}'`);
    const waiting = new AbortController();
    try {
      const ended = await Promise.race([this.#pumped.then(() => true), clock.sleep(END_WAIT_MS, waiting.signal).then(() => false)]);
      if (!ended) throw new BlockError('BUSY', `the VM state at '${this.path}' has not ended`);
    } finally {
      waiting.abort();
    }
  }

  /** Ends the stream, and frees what no snapshot has taken. Idempotent. */
  drop(): Promise<void> {
    this.#dropping ??= this.#drop();
    return this.#dropping;
  }

  async #drop(): Promise<void> {
    try {
      await this.#input.close();
      await this.#pumped.catch(() => undefined);
      await this.#writer.abort();
      if (this.#directory !== null) await rm(this.#directory, { recursive: true, force: true });
      await this.#target.area.discard();
    } finally {
      receiving.delete(this.#target.node);
    }
  }
}

/** Who connected before now is known afterwards: the kernel tells of all sockets before the second turn ends. */
async function eventsAtHand(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => { setImmediate(resolve); });
}
