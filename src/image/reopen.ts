/**
 * blockdev-reopen: other options for open nodes, and other nodes below them; for a list of nodes all or nothing. Options
 * that are not given go back to their defaults, as with QEMU, and those that cannot change must be given as they were.
 */
import { BlockChild } from '../block/child.js';
import type { PreparedUse } from '../block/driver.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { reaches, refuseCycle, type NodeUser } from '../block/permissions.js';
import { givenOnly, inherit, ownOptions, readCommon, type BlockdevContext } from './blockdev.js';
import { findDriver, type CommonOptions, type ReopenedDriver } from './drivers.js';
import { extractOptions, flattenOptions, invalid, NodeOptionsReader, type FlatOptions, type OptionTree } from './options.js';

const COMMON: readonly string[] = ['node-name', 'driver', 'discard', 'cache.direct', 'cache.no-flush', 'read-only', 'auto-read-only', 'detect-zeroes'];

interface Queued {
  readonly node: BlockNode;
  readonly flat: FlatOptions;
}

interface Change {
  readonly node: BlockNode;
  readonly given: FlatOptions;
  readonly common: CommonOptions;
  readonly driver: ReopenedDriver;
  /** What is to lie below instead, by edge. */
  readonly links: ReadonlyMap<string, BlockNode | null>;
}

export function reopenBlockdevs(graph: BlockGraph, list: readonly OptionTree[], context: BlockdevContext = {}): Promise<void> {
  return reopenFlat(graph, list.map((options) => flattenOptions(options)), context);
}

export async function reopenFlat(graph: BlockGraph, list: readonly FlatOptions[], context: BlockdevContext = {}): Promise<void> {
  const queue = new Map<BlockNode, Queued>();
  for (const flat of list) {
    const name = flat.get('node-name');
    if (name === undefined) throw invalid('node-name not specified');
    enqueue(queue, graph.get(String(name)), flat);
  }
  const changes: Change[] = [];
  for (const queued of queue.values()) changes.push(readChange(graph, queued, context, changes));
  const orphans = changes.flatMap(({ node, links }) => [...links.keys()].map((edge) => childOf(node, edge)?.node)).filter((node) => node !== undefined);
  await apply(graph, parentsFirst(changes));
  for (const node of orphans) if (node.parents.size === 0 && !node.pinned) await node.close();
}

function childOf(node: BlockNode, edge: string): BlockChild | undefined {
  return node.children.find((child) => child.edge === edge);
}

/** Children that were defined in place are reopened with their parent, by what is given for them there. */
function enqueue(queue: Map<BlockNode, Queued>, node: BlockNode, flat: FlatOptions): void {
  queue.set(node, { node, flat });
  for (const child of node.children) {
    const below = child.node;
    const reference = flat.get(child.edge);
    const otherNode = reference !== undefined && reference !== below.nodeName;
    if (below.origin?.inheritsFrom !== node || otherNode) continue;
    const options = reference === undefined ? extractOptions(flat, child.edge) : presentOptions(below, false);
    if (options.size === 0 && child.role === 'backing') continue; // missing: refused later
    flat.set(child.edge, below.nodeName);
    if (queue.has(below)) continue;
    inherit(options, readCommon(new NodeOptionsReader(new Map(flat)), node.nodeName), child.role);
    enqueue(queue, below, options);
  }
}

/** What the node was opened with, and what it was reopened with since; `follow` leaves out what is to follow the parent. */
export function presentOptions(node: BlockNode, follow: boolean): FlatOptions {
  const flat: FlatOptions = new Map(node.origin?.options ?? []);
  if (follow) for (const name of ['read-only', 'auto-read-only']) flat.delete(name);
  flat.set('driver', node.driver.formatName);
  flat.set('node-name', node.nodeName);
  if (node.driver.setBacking !== undefined && node.backing === null) flat.set('backing', null);
  for (const child of node.children) {
    if (child.node.origin?.inheritsFrom === node) {
      for (const [name, value] of presentOptions(child.node, follow && child.role !== 'backing')) if (name !== 'node-name') flat.set(`${child.edge}.${name}`, value);
    } else {
      flat.set(child.edge, child.node.nodeName);
    }
  }
  return flat;
}

function readChange(graph: BlockGraph, { node, flat }: Queued, context: BlockdevContext, before: readonly Change[]): Change {
  const { driver, origin } = node;
  const given = new Map(flat);
  const reader = new NodeOptionsReader(flat);
  const common = readCommon(reader, node.nodeName);
  const definition = findDriver(driver.formatName);
  if (definition?.reopen === undefined) {
    throw invalid(`Block format '${driver.formatName}' used by node '${node.nodeName}' does not support reopening files`);
  }
  const old = origin?.options ?? new Map();
  for (const name of old.keys()) {
    if (!given.has(name) && !COMMON.includes(name) && definition.mutable?.includes(name) !== true) throw invalid(`Option '${name}' cannot be reset to its default value`);
  }
  const reopened = definition.reopen({
    node, common, options: reader, throttleGroup: context.throttleGroup, child: (edge) => futureChild(graph, node, given, edge),
  });
  const links = readLinks(graph, node, flat, before);
  for (const [name, value] of flat) {
    const unchanged = name === 'driver' ? value === driver.formatName : name === 'node-name' || String(old.get(name)) === String(value) || childOf(node, name)?.node.nodeName === value;
    if (!unchanged) throw invalid(`Cannot change the option '${name}'`);
  }
  return { node, given: ownOptions(given, node.children), common, driver: reopened, links };
}

function futureChild(graph: BlockGraph, node: BlockNode, given: FlatOptions, edge: string): BlockNode | null {
  const reference = given.get(edge);
  return (typeof reference === 'string' ? graph.find(reference) : undefined) ?? childOf(node, edge)?.node ?? null;
}

/** `backing` and `file` may name other nodes. Takes what it reads out of `flat`. */
function readLinks(graph: BlockGraph, node: BlockNode, flat: FlatOptions, before: readonly Change[]): Map<string, BlockNode | null> {
  const links = new Map<string, BlockNode | null>();
  const read = (edge: string): void => {
    const wanted = readLink(graph, node, flat, edge);
    if (wanted === undefined) return;
    if (wanted !== null) refuseCycle(node, wanted, edge, (other) => childrenAfter(other, before));
    links.set(edge, wanted);
  };
  if (node.driver.setBacking !== undefined) {
    const missing = !flat.has('backing') && ![...flat.keys()].some((name) => name.startsWith('backing.'));
    const has = node.backing !== null || (node.driver.describe?.().backingFile ?? null) !== null;
    if (has && missing) throw invalid(`backing is missing for '${node.nodeName}'`);
    if (flat.has('backing')) read('backing');
  }
  if (childOf(node, 'file') !== undefined && flat.has('file')) read('file');
  return links;
}

/** What lies below a node once the changes that were read before are made. */
function childrenAfter(node: BlockNode, changes: readonly Change[]): readonly BlockNode[] {
  const links = changes.find((change) => change.node === node)?.links ?? new Map<string, BlockNode | null>();
  const kept = node.children.filter(({ edge }) => !links.has(edge)).map((child) => child.node);
  return [...kept, ...[...links.values()].filter((linked) => linked !== null)];
}

/** Undefined: it stays as it is. */
function readLink(graph: BlockGraph, node: BlockNode, flat: FlatOptions, edge: string): BlockNode | null | undefined {
  const reference = flat.get(edge)!;
  const child = childOf(node, edge);
  const present = child?.node ?? null;
  flat.delete(edge);
  const wanted = reference === null ? null : graph.find(String(reference));
  if (wanted === undefined) throw invalid(`Cannot find device='' nor node-name='${String(reference)}'`);
  if (wanted === present) return undefined;
  if (child !== undefined && child.frozen > 0) throw invalid(`Cannot change frozen '${edge}' link from '${node.nodeName}' to '${child.node.nodeName}'`);
  return wanted;
}

/** A node is drained before those below it: what it has in flight needs them. */
function parentsFirst(changes: readonly Change[]): Change[] {
  const order: Change[] = [];
  const rest = new Set(changes);
  while (rest.size > 0) {
    const next = [...rest].find(({ node }) => ![...rest].some((other) => other.node !== node && reaches(other.node, node)))!;
    rest.delete(next);
    order.push(next);
  }
  return order;
}

async function apply(graph: BlockGraph, changes: readonly Change[]): Promise<void> {
  const prepared: PreparedUse[] = [];
  const step = async (index: number): Promise<void> => {
    const change = changes[index];
    if (change === undefined) return commit(graph, changes, prepared);
    await change.node.drained(async () => {
      const ready = await change.driver.prepare?.();
      if (ready !== undefined) prepared.push(ready);
      await step(index + 1);
      await ready?.after?.();
    });
  };
  let committed = false;
  try {
    prepared.push({ commit: () => { committed = true; }, abort: () => {} });
    await step(0);
  } catch (error) {
    if (!committed) for (const ready of prepared.reverse()) ready.abort();
    throw error;
  }
}

function commit(graph: BlockGraph, changes: readonly Change[], prepared: readonly PreparedUse[]): Promise<void> {
  const below = changes.flatMap(({ links }) => [...links.values()]).filter((node) => node !== null);
  const roots = [...changes.map(({ node }) => node), ...changes.flatMap(({ node, links }) => [...links.keys()].map((edge) => childOf(node, edge)?.node)), ...below]
    .filter((node) => node !== undefined);
  const links = new Map<NodeUser, BlockNode>();
  for (const change of changes) {
    for (const [edge, wanted] of change.links) {
      const child = childOf(change.node, edge);
      if (child !== undefined && wanted !== null) links.set(child, wanted);
    }
  }
  return graph.change(roots, {
    links,
    readOnly: new Map(changes.map(({ node, common }) => [node, common.readOnly])),
    edit: () => {
      const undo = changes.map((change) => editBacking(change));
      return () => { for (const step of undo.reverse()) step(); };
    },
  }, () => {
    for (const ready of prepared) ready.commit();
    for (const change of changes) settle(change);
  });
}

/** Makes a backing edge, or takes it away. */
function editBacking({ node, links }: Change): () => void {
  const wanted = links.get('backing');
  const { driver } = node;
  const present = driver.backing ?? null;
  if (wanted === undefined || driver.setBacking === undefined || (wanted === null) === (present === null)) return () => {};
  if (wanted === null) {
    present!.node.parents.delete(present!);
    driver.setBacking(null);
    return () => {
      present!.node.parents.add(present!);
      driver.setBacking!(present);
    };
  }
  const child = new BlockChild('backing', 'backing', wanted);
  child.parent = node;
  driver.setBacking(child);
  return () => {
    wanted.parents.delete(child);
    driver.setBacking!(null);
  };
}

function settle({ node, common, given, driver }: Change): void {
  node.noFlush = common.noFlush;
  node.direct = common.direct;
  node.detectZeroes = common.detectZeroes;
  node.discardMode = common.discard;
  node.refreshLimits();
  if (node.origin === null) return;
  node.origin.options = given;
  if (driver.strong !== undefined) node.origin.strong = givenOnly(driver.strong);
}
