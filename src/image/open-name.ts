/**
 * Opens an image in a graph as a command line names it: a file or device, an NBD URI, `json:{…}`, with a format or with
 * one that is probed for; or a tree of options.
 */
import { BlockError } from '../base/errors.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { RawDriver } from '../format/raw.js';
import { openBlockdev, type BlockdevContext } from './blockdev.js';
import { nodeFilename } from './filename.js';
import { probeFormat, PROBE_BYTES } from './formats.js';
import { fileOptions, protocolOptions, treeInName } from './image-name.js';
import { flattenOptions, treeOf, type OptionTree } from './options.js';
import { isOptionName } from './tree-name.js';

export interface OpenedByName {
  readonly node: BlockNode;
  /**
   * The file's name where the format was not told, and nothing of a known one was found. Writes cannot make it look like
   * another one.
   */
  readonly guessedRaw: string | null;
}

/**
 * `options` are BlockdevOptions without file and driver; `format` null probes, and a tree that tells its driver has it.
 * The node is pinned: remove it, or close the graph.
 */
export async function openByName(
  graph: BlockGraph, name: string, format: string | null, options: OptionTree = {}, context: BlockdevContext = {},
): Promise<OpenedByName> {
  const tree = treeInName(name);
  if (tree === null) return openProtocol(graph, name, format, options, context);
  return openByOptions(graph, { ...options, ...(format === null ? {} : { driver: format }), ...tree }, context);
}

/** As QEMU's programs take names: `driver=…` is that of a file, and the format that was asked for is that of a tree too. */
export async function openByQemuName(
  graph: BlockGraph, name: string, format: string | null, options: OptionTree = {}, context: BlockdevContext = {},
): Promise<OpenedByName> {
  const tree = isOptionName(name) ? null : treeInName(name);
  if (tree === null) return openProtocol(graph, name, format, options, context);
  return openByOptions(graph, { ...options, ...tree, ...(format === null ? {} : { driver: format }) }, context);
}

async function openProtocol(graph: BlockGraph, name: string, format: string | null, options: OptionTree, context: BlockdevContext): Promise<OpenedByName> {
  const file = Object.fromEntries(await protocolOptions(name)) as OptionTree;
  if (format === null) return probeOn(graph, file, options, context);
  const protocol = format === file['driver'];
  return { node: await open(graph, protocol ? { ...options, ...file } : { ...options, driver: format, file }, context), guessedRaw: null };
}

/** A tree of options; where it tells no driver, the format of its `file` is probed. */
export async function openByOptions(graph: BlockGraph, tree: OptionTree, context: BlockdevContext = {}): Promise<OpenedByName> {
  if (tree['driver'] !== undefined) return { node: await open(graph, tree, context), guessedRaw: null };
  const { file, ...options } = treeOf(flattenOptions(tree));
  if (typeof file === 'string') return { node: graph.lookUp(file), guessedRaw: null };
  if (typeof file !== 'object' || file === null) throw new BlockError('INVALID_ARGUMENT', 'Must specify either driver or file');
  const definition = file as OptionTree;
  const { filename } = definition;
  const protocol = definition['driver'] === undefined && typeof filename === 'string' ? Object.fromEntries(await fileOptions(filename)) : {};
  return probeOn(graph, { ...definition, ...protocol }, options, context);
}

async function probeOn(graph: BlockGraph, file: OptionTree, options: OptionTree, context: BlockdevContext): Promise<OpenedByName> {
  const { 'read-only': readOnly, 'cache.direct': direct, 'cache.no-flush': noFlush, 'force-share': forceShare } = options;
  const inherited = { 'read-only': readOnly, 'cache.direct': direct, 'cache.no-flush': noFlush, 'force-share': forceShare, discard: 'unmap' };
  const below = await open(graph, { ...inherited, ...file }, context);
  try {
    const found = await probe(below);
    const { backing, ...others } = options;
    // no backing file is what a raw image has anyway
    const fitting = found === 'raw' && backing === null ? others : options;
    const node = await open(graph, { ...fitting, driver: found, file: below.nodeName }, context);
    if (below.origin !== null) below.origin.inheritsFrom = node;
    if (!(node.driver instanceof RawDriver)) return { node, guessedRaw: null };
    node.driver.guardFirstSector();
    node.refreshLimits();
    return { node, guessedRaw: nodeFilename(below) };
  } finally {
    // from here on only the node above holds it
    below.pinned = false;
    if (below.parents.size === 0) await below.close();
  }
}

function open(graph: BlockGraph, tree: OptionTree, context: BlockdevContext): Promise<BlockNode> {
  return openBlockdev(graph, tree, { ...context, anonymous: true });
}

async function probe(file: BlockNode): Promise<'raw' | 'qcow2'> {
  const start = new Uint8Array(PROBE_BYTES);
  await file.read(0, start.subarray(0, Math.min(PROBE_BYTES, file.driver.growable ? PROBE_BYTES : file.length())));
  return probeFormat(start);
}
