/** The static table of block drivers, by QEMU's names. */
import type { BlockDriver, PreparedUse } from '../block/driver.js';
import type { BlockNode, NodeOrigin } from '../block/node.js';
import type { ChildRole, EdgeUse } from '../block/permissions.js';
import type { BlockGraph } from '../block/graph.js';
import type { ThrottleGroup } from '../block/throttle.js';
import type { QuorumEvent } from '../filter/quorum.js';
import type { TlsCredentials } from '../nbd/tls.js';
import type { NodeOptionsReader } from './options.js';
import { FILE_DRIVERS } from './driver-file.js';
import { FILTER_DRIVERS } from './driver-filter.js';
import { NBD_DRIVER } from './driver-nbd.js';
import { NULL_DRIVERS } from './driver-null.js';
import { QCOW2_DRIVER } from './driver-qcow2.js';
import { RAW_DRIVER } from './driver-raw.js';
import { SNAPSHOT_DRIVERS } from './driver-snapshot.js';

/** What all nodes have, read before the driver is asked. */
export interface CommonOptions {
  readonly nodeName: string;
  readonly readOnly: boolean;
  readonly autoReadOnly: boolean;
  readonly direct: boolean;
  readonly noFlush: boolean;
  readonly forceShare: boolean;
  readonly discard: 'ignore' | 'unmap';
  readonly detectZeroes: 'off' | 'on' | 'unmap';
}

/** What a node tells by itself, as QMP tells it. */
export type NodeEvent = QuorumEvent | {
  readonly event: 'BLOCK_IMAGE_CORRUPTED';
  readonly data: {
    readonly device: ''; readonly 'node-name': string; readonly msg: string; readonly offset?: number; readonly size?: number; readonly fatal: boolean;
  };
};

export interface DriverContext {
  readonly graph: BlockGraph;
  readonly common: CommonOptions;
  /** The driver's own options; it takes those it knows. */
  readonly options: NodeOptionsReader;
  /** The `tls-creds-*` object of this id; undefined where there is none, or nobody who knows objects. */
  readonly tlsCredentials?: ((id: string) => TlsCredentials | undefined) | undefined;
  /** The type of the object of this id. */
  readonly objectType?: ((id: string) => string | undefined) | undefined;
  /** The throttle-group object of this name. */
  readonly throttleGroup?: ((name: string) => ThrottleGroup | undefined) | undefined;
  readonly onEvent?: ((event: NodeEvent) => void) | undefined;
  /** See OpenImageOptions. */
  readonly signal?: AbortSignal | undefined;
  /** How the root of a tree is opened that has a name of its own; null for all other nodes. */
  readonly root: { readonly snapshot: string | undefined; readonly forCheck: boolean | undefined; readonly noBacking: boolean | undefined } | null;
  /** Opens or finds the node for an edge, and holds it for the node being opened, with the uses of the role. */
  child(edge: string, role: ChildRole, use?: EdgeUse): Promise<BlockNode>;
  /** True where the options say what the edge is to be, be it nothing. */
  defines(edge: string): boolean;
  /** Null where no such child is defined. */
  optionalChild(edge: string, role: ChildRole, use?: EdgeUse): Promise<BlockNode | null>;
  /** Opens what an image names as its backing file. */
  backingOf(overlay: string, name: string, format: string | null): Promise<BlockNode | null>;
}

export interface OpenedDriver {
  readonly driver: BlockDriver;
  /** How errors call the node; by default the name of its first child. */
  readonly name?: string;
  /** See NodeOrigin; options that are undefined were not given. */
  readonly origin?: Omit<NodeOrigin, 'strong'> & { readonly strong?: Readonly<Record<string, unknown>> };
  /** Where the driver could not open as it was asked to (auto-read-only). */
  readonly readOnly?: boolean;
}

export interface DriverDefinition {
  readonly name: string;
  /** True for those that hold no node below. */
  readonly protocol: boolean;
  open(context: DriverContext): Promise<OpenedDriver>;
  /** Options that a reopen may leave out, and with that set back to their defaults. */
  readonly mutable?: readonly string[];
  /** Reads the options that may change; absent where nothing of the driver can be reopened. */
  reopen?(context: ReopenContext): ReopenedDriver;
}

export interface ReopenContext {
  readonly node: BlockNode;
  readonly common: Omit<CommonOptions, 'nodeName'>;
  readonly options: NodeOptionsReader;
  readonly throttleGroup?: ((name: string) => ThrottleGroup | undefined) | undefined;
  /** The node that will be below. */
  child(edge: string): BlockNode | null;
}

export interface ReopenedDriver {
  /** On the drained node, before the change; `after` runs when all is changed. */
  readonly prepare?: () => Promise<PreparedUse & { after?(): Promise<void> }>;
  /** See NodeOrigin. */
  readonly strong?: Readonly<Record<string, unknown>>;
}

const DRIVERS: ReadonlyMap<string, DriverDefinition> = new Map(
  [...FILE_DRIVERS, ...NULL_DRIVERS, NBD_DRIVER, RAW_DRIVER, QCOW2_DRIVER, ...FILTER_DRIVERS, ...SNAPSHOT_DRIVERS].map((definition) => [definition.name, definition]));

export function findDriver(name: string): DriverDefinition | undefined {
  return DRIVERS.get(name);
}
