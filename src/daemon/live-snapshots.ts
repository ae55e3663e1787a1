/** Our commands for snapshots of live disks: with RAM state, in place of older ones, and with the length of the pause. */
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import type { VmStateArea } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { snapshotInfo } from '../image/info.js';
import { IncomingState, refuseWhileReceiving } from '../job/incoming-state.js';
import { createSnapshotSet, type SnapshotTarget } from '../job/snapshot-set.js';
import type { CommandTable } from '../qmp/server.js';
import type { Session } from '../qmp/session.js';
import type { JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';

interface Incoming {
  readonly state: IncomingState;
  /** Only the client that asked for it may use it; with the client it goes. */
  readonly owner: Session;
  /** Keeps the node. */
  readonly door: BlockBackend;
  /** The snapshot that takes it: until that has ended it stays. */
  taking: Promise<unknown> | null;
  dropping: Promise<void> | null;
}

interface Target extends SnapshotTarget {
  readonly area: VmStateArea;
}

export class LiveSnapshots {
  readonly #daemon: StorageDaemon;
  readonly #incoming = new Map<BlockNode, Incoming>();

  constructor(daemon: StorageDaemon) {
    this.#daemon = daemon;
  }

  commands(): CommandTable {
    return {
      'x-quiesce-vm-state-receive': (args, session) => this.#receive(args, session),
      'x-quiesce-vm-state-cancel': ({ 'node-name': name }, session) => this.#cancel(name as string, session),
      'x-quiesce-snapshot-create': (args, session) => this.#create(args, session),
    };
  }

  async close(): Promise<void> {
    for (const [node, incoming] of [...this.#incoming]) await this.#drop(node, incoming);
  }

  /** Asks before minutes of RAM are taken in vain whatever the snapshot would be refused for. */
  async #receive(args: JsonDict, owner: Session): Promise<JsonDict> {
    const [{ node, area }] = this.#targets(args);
    refuseWhileReceiving(node);
    const door = await this.#daemon.graph.attach(node, { used: 0, shared: Permission.ALL });
    try {
      const state = await IncomingState.listen({ node, area }, { chunkSize: optionalNumber(args['chunk-size']), depth: optionalNumber(args['depth']) });
      const incoming: Incoming = { state, owner, door, taking: null, dropping: null };
      this.#incoming.set(node, incoming);
      void owner.ended.then(() => this.#drop(node, incoming)).catch(() => undefined);
      return { path: state.path };
    } catch (error) {
      await this.#daemon.graph.detach(door);
      throw error;
    }
  }

  async #cancel(name: string, session: Session): Promise<JsonDict> {
    const node = this.#daemon.graph.lookUp(name);
    const incoming = this.#incoming.get(node);
    if (incoming?.owner !== session) throw new BlockError('NOT_FOUND', `Node '${name}' is receiving no VM state of this client`);
    const { failure } = incoming.state;
    await this.#drop(node, incoming);
    return failure === null ? {} : { error: failure };
  }

  #drop(node: BlockNode, incoming: Incoming): Promise<void> {
    incoming.dropping ??= this.#end(node, incoming);
    return incoming.dropping;
  }

  async #end(node: BlockNode, { state, door, taking }: Incoming): Promise<void> {
    try {
      await taking?.catch(() => undefined);
      await state.drop();
    } finally {
      this.#incoming.delete(node);
      await this.#daemon.graph.detach(door);
    }
  }

  async #create(args: JsonDict, session: Session): Promise<JsonDict> {
    const { node } = this.#target(args);
    if (args['take-vm-state'] !== true) {
      refuseWhileReceiving(node);
      return this.#snapshot(args, 0);
    }
    const incoming = this.#incoming.get(node);
    if (incoming?.owner !== session) throw new BlockError('NOT_FOUND', `Node '${node.nodeName}' has received no VM state of this client`);
    try {
      const bytes = await incoming.state.finish(optionalNumber(args['vm-state-size']) ?? null, this.#daemon.clock);
      if (incoming.dropping !== null) throw new BlockError('CANCELLED', `the client of the snapshot '${args['name'] as string}' is gone`);
      const taking = this.#snapshot(args, bytes);
      incoming.taking = taking;
      return await taking;
    } finally {
      await this.#drop(node, incoming);
    }
  }

  async #snapshot(args: JsonDict, vmStateSize: number): Promise<JsonDict> {
    const { clock } = this.#daemon;
    const now = clock.wallMs();
    const { snapshots: [first, ...also], pauseNs } = await createSnapshotSet(this.#targets(args), {
      name: args['name'] as string, vmStateSize, dateSeconds: Math.floor(now / 1000), dateNanoseconds: Math.floor((now % 1000) * 1e6),
      vmClockNs: optionalBigint(args['vm-clock-nsec']), icount: optionalBigint(args['icount']),
    }, clock);
    return { snapshot: snapshotInfo(first!), ...args['also'] === undefined ? {} : { also: also.map(snapshotInfo) }, 'pause-nsec': pauseNs };
  }

  /** The node itself, then those that are to have the same snapshot. */
  #targets(args: JsonDict): [Target, ...Target[]] {
    const also = (args['also'] ?? []) as readonly string[];
    const targets: [Target, ...Target[]] = [this.#target(args), ...also.map((name) => this.#target({ ...args, 'node-name': name }))];
    for (const [index, { node }] of targets.entries()) {
      if (targets.findIndex((other) => other.node === node) !== index) throw new BlockError('INVALID_ARGUMENT', `Node '${node.nodeName}' is named twice`);
      if (index > 0) refuseWhileReceiving(node);
    }
    return targets;
  }

  #target({ 'node-name': nodeName, name, replace }: JsonDict): Target {
    const node = this.#daemon.graph.lookUp(nodeName as string);
    const { snapshots: table, vmState: area } = node.driver;
    if (node.readOnly) throw new BlockError('READ_ONLY', `Node '${node.nodeName}' is read only`);
    if (table === undefined || area === undefined) {
      throw new BlockError('NOT_SUPPORTED', `Node '${node.nodeName}' has format ${node.driver.formatName}, which has no internal snapshots; a qcow2 node was expected`);
    }
    table.checkNew(name as string);
    if (replace !== true && table.list().some((snapshot) => snapshot.name === name)) {
      throw new BlockError('EXISTS', `Node '${node.nodeName}' already has a snapshot '${name as string}'`);
    }
    return { node, table, area };
  }
}

function optionalNumber(value: unknown): number | undefined {
  return value === undefined ? undefined : Number(value);
}

function optionalBigint(value: unknown): bigint | undefined {
  return value === undefined ? undefined : BigInt(value as number | bigint);
}
