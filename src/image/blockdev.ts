/**
 * Opens trees of nodes from QEMU's BlockdevOptions: each node with its children, by definition or by reference, held
 * with the permissions its role needs before a byte of it is read.
 */
import type { BlockGraph } from '../block/graph.js';
import type { ThrottleGroup } from '../block/throttle.js';
import type { BlockChild } from '../block/child.js';
import type { BlockDriver } from '../block/driver.js';
import { BlockNode, type NodeOrigin } from '../block/node.js';
import { edgeUse, NO_USE, type ChildRole, type EdgeUse, type NodeUser } from '../block/permissions.js';
import type { TlsCredentials } from '../nbd/tls.js';
import { isNbdName } from '../nbd/name.js';
import type { TraceSink } from '../trace/sink.js';
import { type NodeEvent, findDriver, type CommonOptions, type DriverContext, type DriverDefinition, type OpenedDriver } from './drivers.js';
import { nodeFilename } from './filename.js';
import { fileOptions, imageOptions } from './image-name.js';
import { probeFormat, PROBE_BYTES } from './formats.js';
import { resolveBackingName, type BackingPolicy } from './backing-name.js';
import { extractOptions, flattenOptions, invalid, NodeOptionsReader, type FlatOptions, type OptionTree } from './options.js';

const MAX_DEPTH = 200;

export interface BlockdevContext {
  /** The root may go without a node-name: it gets a generated one. */
  readonly anonymous?: boolean | undefined;
  /** Which backing files an image may name. Default `allow`, as with QEMU: the caller names the node tree. */
  readonly backing?: BackingPolicy | undefined;
  readonly trace?: TraceSink | null | undefined;
  /** Finds the `tls-creds-*` object of an id. */
  readonly tlsCredentials?: ((id: string) => TlsCredentials | undefined) | undefined;
  /** The type of the object of an id. */
  readonly objectType?: ((id: string) => string | undefined) | undefined;
  /** The throttle-group objects, for the driver of that name. */
  readonly throttleGroup?: ((name: string) => ThrottleGroup | undefined) | undefined;
  /** Hears what nodes tell by themselves. */
  readonly onEvent?: ((event: NodeEvent) => void) | undefined;
  /** See OpenImageOptions. */
  readonly signal?: AbortSignal | undefined;
}

/** Opens a tree. The root is held by its name (blockdev-add) until it is removed from the graph. */
export async function openBlockdev(graph: BlockGraph, options: OptionTree, context: BlockdevContext = {}): Promise<BlockNode> {
  const flat = flattenOptions(options);
  if (!flat.has('node-name') && context.anonymous !== true) throw invalid("'node-name' must be specified for the root node");
  const node = await new TreeOpener(graph, context, 0).open(flat);
  node.pinned = true;
  return node;
}

/** How an image that is opened by its name differs from one in a graph of its own. */
interface RootOptions {
  readonly writethrough: boolean;
  readonly snapshot: string | undefined;
  readonly forCheck: boolean | undefined;
  readonly noBacking: boolean | undefined;
}

/** Opens a tree that closes with its root. */
export function openTree(graph: BlockGraph, flat: FlatOptions, context: BlockdevContext, root: RootOptions): Promise<BlockNode> {
  return new TreeOpener(graph, context, 0, root).open(flat);
}

/** A child that is being opened for a node which does not exist yet. */
class Reservation implements NodeUser {
  readonly edge: string;
  use: EdgeUse = NO_USE;
  readonly node: BlockNode;
  /** The node was defined in place, not referred to. */
  inPlace = false;
  readonly #describe: () => string;

  constructor(edge: string, node: BlockNode, describe: () => string) {
    this.edge = edge;
    this.node = node;
    this.#describe = describe;
    node.parents.add(this);
  }

  describe(): string { return this.#describe(); }
  replace(): void { /* the graph is not edited below a node that is being opened */ }
}

class TreeOpener {
  readonly #graph: BlockGraph;
  readonly #context: BlockdevContext;
  readonly #depth: number;
  readonly #root: RootOptions | null;

  constructor(graph: BlockGraph, context: BlockdevContext, depth: number, root: RootOptions | null = null) {
    this.#graph = graph;
    this.#context = context;
    this.#depth = depth;
    this.#root = root;
    if (depth > MAX_DEPTH) throw invalid(`a tree of more than ${MAX_DEPTH} nodes, one below the other, is not opened`);
  }

  /** `asProtocol`: a name without a driver is that of a file, and not of an image in it. */
  async open(flat: FlatOptions, asProtocol = false): Promise<BlockNode> {
    const fileNode = flat.has('driver') ? null : await this.#findDriver(flat, asProtocol);
    try {
      const driverName = flat.get('driver');
      const definition = typeof driverName === 'string' ? findDriver(driverName) : undefined;
      if (definition === undefined) throw invalid(`Unknown driver '${String(driverName)}'`);
      flat.delete('driver');
      return await new NodeOpening(this.#graph, this.#context, this.#depth, definition, flat, { asProtocol, root: this.#root }).run();
    } finally {
      if (fileNode !== null) await this.#graph.release(fileNode.node, fileNode).catch(() => {});
    }
  }

  /** Puts the driver into `flat`: by the name, or by what the file begins with, which then stays open for it. */
  async #findDriver(flat: FlatOptions, asProtocol: boolean): Promise<Reservation | null> {
    const filename = flat.get('filename');
    if (asProtocol && filename !== undefined) {
      flat.delete('filename');
      for (const [name, value] of await fileOptions(String(filename))) flat.set(name, value);
      return null;
    }
    const reference = flat.get('file');
    const definition = extractOptions(flat, 'file');
    if (reference === undefined && definition.size === 0) throw invalid('Must specify either driver or file');
    inherit(definition, readCommon(new NodeOptionsReader(new Map(flat)), ''), 'file');
    const node = reference === undefined ? await new TreeOpener(this.#graph, this.#context, this.#depth + 1).open(definition, true) : this.#graph.lookUp(String(reference));
    const keep = new Reservation('file', node, () => '');
    flat.set('file', node.nodeName);
    flat.set('driver', await probe(node));
    return keep;
  }
}

/** One node on its way. What it took is given back where it fails. */
class NodeOpening {
  readonly #graph: BlockGraph;
  readonly #context: BlockdevContext;
  readonly #depth: number;
  readonly #definition: DriverDefinition;
  readonly #flat: FlatOptions;
  readonly #held = new Map<string, Reservation>();
  #nodeName = '';
  #openedBacking: BlockNode | null = null;
  #common!: CommonOptions;

  readonly #how: { readonly asProtocol: boolean; readonly root: RootOptions | null };

  constructor(graph: BlockGraph, context: BlockdevContext, depth: number, definition: DriverDefinition, flat: FlatOptions, how: { asProtocol: boolean; root: RootOptions | null }) {
    this.#how = how;
    this.#graph = graph;
    this.#context = context;
    this.#depth = depth;
    this.#definition = definition;
    this.#flat = flat;
  }

  async run(): Promise<BlockNode> {
    const given = new Map(this.#flat);
    const reader = new NodeOptionsReader(this.#flat);
    const wanted = reader.string('node-name');
    this.#common = readCommon(reader, '');
    try {
      if (!this.#definition.protocol) await this.#reserve('file');
      const { name } = this.#definition;
      if ((name === 'file' || name === 'host_device') && (this.#flat.get('filename') ?? '') === '') throw invalid(`The '${name}' block driver requires a file name`);
      this.#nodeName = this.#graph.takeName(wanted);
      this.#common = { ...this.#common, nodeName: this.#nodeName };
      const opened = await this.#definition.open(this.#driverContext(reader));
      return await this.#finish(opened, reader, given);
    } catch (error) {
      this.#graph.dropName(this.#nodeName);
      for (const hold of this.#held.values()) await this.#graph.release(hold.node, hold).catch(() => {});
      throw error;
    }
  }

  async #finish(opened: OpenedDriver, reader: NodeOptionsReader, given: FlatOptions): Promise<BlockNode> {
    const { driver } = opened;
    const common = this.#common;
    const node = new BlockNode({
      name: opened.name ?? driver.children?.[0]?.name ?? this.#nodeName,
      nodeName: this.#nodeName,
      driver,
      readOnly: opened.readOnly ?? common.readOnly,
      noFlush: common.noFlush,
      forceShare: common.forceShare,
      discard: common.discard,
      detectZeroes: common.detectZeroes,
      direct: common.direct,
      origin: { ...opened.origin, strong: givenOnly(opened.origin?.strong ?? {}), ...this.#autoBacking(driver), options: ownOptions(given, driver.children ?? []) },
      writethrough: this.#how.root?.writethrough ?? false,
      trace: this.#context.trace ?? this.#graph.trace ?? undefined,
    });
    // The real edges take the place of what was held for them
    for (const child of node.children) {
      const hold = this.#held.get(child.edge);
      if (hold !== undefined) child.use = hold.use;
    }
    for (const hold of this.#held.values()) {
      hold.node.parents.delete(hold);
      if (hold.inPlace && hold.node.origin !== null) hold.node.origin.inheritsFrom = node;
    }
    const unused = [...this.#held.values()].filter(({ node: below }) => below.parents.size === 0 && !below.pinned);
    this.#held.clear();
    try {
      for (const { node: below } of unused) await below.close();
      reader.finish(this.#definition.name, this.#definition.protocol);
      this.#graph.add(node);
      await this.#graph.refresh([node]);
    } catch (error) {
      await node.close().catch(() => {});
      throw error;
    }
    return node;
  }

  /** The name of the backing file that the image asks for, if it came to be opened; else what the image says. */
  #autoBacking(driver: BlockDriver): Pick<NodeOrigin, 'autoBacking'> {
    const named = driver.describe?.().backingFile ?? null;
    return { autoBacking: this.#openedBacking === null ? named : nodeFilename(this.#openedBacking) };
  }

  #driverContext(options: NodeOptionsReader): DriverContext {
    return {
      graph: this.#graph,
      common: this.#common,
      options,
      tlsCredentials: this.#context.tlsCredentials,
      objectType: this.#context.objectType,
      throttleGroup: this.#context.throttleGroup,
      onEvent: this.#context.onEvent,
      signal: this.#context.signal,
      root: this.#how.root,
      child: async (edge, role, use) => {
        const node = await this.#child(edge, role, use);
        if (node === null) throw invalid(`A block device must be specified for "${edge}"`);
        return node;
      },
      defines: (edge) => this.#flat.has(edge) || [...this.#flat.keys()].some((key) => key.startsWith(`${edge}.`)),
      optionalChild: (edge, role, use) => this.#child(edge, role, use),
      backingOf: (overlay, name, format) => this.#backingOf(overlay, name, format),
    };
  }

  async #child(edge: string, role: ChildRole, use?: EdgeUse): Promise<BlockNode | null> {
    const hold = this.#held.get(edge) ?? await this.#reserve(edge, role);
    if (hold === null) return null;
    const wanted = use ?? edgeUse(role, NO_USE, !this.#common.readOnly);
    await this.#graph.setUse(hold, hold.node.forceShare ? { ...wanted, shared: NO_USE.shared } : wanted);
    return hold.node;
  }

  /** Finds or opens the node for an edge, and keeps it from closing. */
  async #reserve(edge: string, role: ChildRole = 'file'): Promise<Reservation | null> {
    const reference = this.#flat.get(edge);
    const definition = extractOptions(this.#flat, edge);
    if (reference === undefined && definition.size === 0) return null;
    this.#flat.delete(edge);
    if (reference === null) return null;
    if (reference !== undefined && definition.size > 0) {
      throw invalid('Cannot reference an existing block device with additional options or a new filename');
    }
    const node = reference === undefined ? await this.#openBelow(definition, role) : this.#graph.lookUp(String(reference));
    const hold = new Reservation(edge, node, () => `node '${this.#nodeName}'`);
    hold.inPlace = reference === undefined;
    this.#held.set(edge, hold);
    return hold;
  }

  #openBelow(definition: FlatOptions, role: ChildRole): Promise<BlockNode> {
    inherit(definition, this.#common, role);
    const { name, protocol } = this.#definition;
    const asProtocol = role !== 'backing' && (name === 'raw' || name === 'qcow2' || protocol || this.#how.asProtocol);
    return new TreeOpener(this.#graph, this.#context, this.#depth + 1).open(definition, asProtocol);
  }

  async #backingTree(flat: FlatOptions, format: string | null): Promise<BlockNode | null> {
    if (format !== null && !flat.has('driver')) flat.set('driver', format);
    inherit(flat, this.#common, 'backing');
    const node = await new TreeOpener(this.#graph, this.#context, this.#depth + 1).open(flat);
    this.#openedBacking = node;
    const hold = new Reservation('backing', node, () => `node '${this.#nodeName}'`);
    hold.inPlace = true;
    this.#held.set('backing', hold);
    return this.#child('backing', 'backing');
  }

  async #backingOf(overlay: string, name: string, format: string | null): Promise<BlockNode | null> {
    if (name.startsWith('json:') && (this.#context.backing ?? 'allow') === 'allow') return this.#backingTree(await imageOptions(name), format);
    const filename = resolveBackingName(overlay, name, this.#context.backing ?? 'allow');
    const opener = new TreeOpener(this.#graph, this.#context, this.#depth + 1);
    const file: FlatOptions = new Map([['driver', isNbdName(filename) ? 'nbd' : 'file'], ['filename', filename]]);
    inherit(file, this.#common, 'backing');
    const fileNode = await opener.open(file);
    const keep = new Reservation('file', fileNode, () => '');
    try {
      const definition: FlatOptions = new Map([['driver', format ?? await probe(fileNode)], ['file', fileNode.nodeName]]);
      inherit(definition, this.#common, 'backing');
      const node = await opener.open(definition);
      if (fileNode.origin !== null) fileNode.origin.inheritsFrom = node;
      this.#openedBacking = node;
      const hold = new Reservation('backing', node, () => `node '${this.#nodeName}'`);
      hold.inPlace = true;
      this.#held.set('backing', hold);
    } finally {
      await this.#graph.release(fileNode, keep);
    }
    return this.#child('backing', 'backing');
  }
}

/** Without what defines or names the nodes below. */
export function ownOptions(given: FlatOptions, children: readonly BlockChild[]): FlatOptions {
  const edges = ['backing', ...children.map(({ edge }) => edge)];
  return new Map([...given].filter(([name]) => !edges.some((edge) => name === edge || name.startsWith(`${edge}.`))));
}

export function givenOnly(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

async function probe(file: BlockNode): Promise<string> {
  const start = new Uint8Array(PROBE_BYTES);
  await file.read(0, start.subarray(0, Math.min(PROBE_BYTES, file.driver.growable ? PROBE_BYTES : file.length())));
  return probeFormat(start);
}

export function readCommon(reader: NodeOptionsReader, nodeName: string): CommonOptions {
  const readOnly = reader.bool('read-only', false);
  const common: CommonOptions = {
    nodeName,
    readOnly,
    autoReadOnly: reader.bool('auto-read-only', false),
    direct: reader.bool('cache.direct', false),
    noFlush: reader.bool('cache.no-flush', false),
    forceShare: reader.bool('force-share', false),
    discard: reader.oneOf('discard', ['ignore', 'unmap', 'off', 'on'] as const, 'ignore').replace('off', 'ignore').replace('on', 'unmap') as 'ignore' | 'unmap',
    detectZeroes: reader.oneOf('detect-zeroes', ['off', 'on', 'unmap'] as const, 'off'),
  };
  if (common.forceShare && !readOnly) throw invalid('force-share=on can only be used with read-only images');
  if (common.detectZeroes === 'unmap' && common.discard !== 'unmap') {
    throw invalid('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
  }
  return common;
}

/** What a child that is defined in place takes over from its parent. */
export function inherit(definition: FlatOptions, parent: CommonOptions, role: ChildRole): void {
  const otherwise = (name: string, value: boolean | string): void => { if (!definition.has(name)) definition.set(name, value); };
  if (parent.direct) otherwise('cache.direct', true);
  if (parent.noFlush) otherwise('cache.no-flush', true);
  if (parent.forceShare) otherwise('force-share', true);
  if (role === 'backing') {
    otherwise('read-only', true);
    otherwise('auto-read-only', false);
  } else {
    otherwise('read-only', parent.readOnly);
    otherwise('auto-read-only', parent.autoReadOnly);
    // formats flush, and discard only what they mean to
    otherwise('discard', 'unmap');
  }
}
