/**
 * Opens an image in a graph as a command line names it: a file or device, an NBD URI, `json:{…}`, with a format or with
 * one that is probed for; or a tree of options.
 */
import { stat } from 'node:fs/promises';
import { BlockError } from '../base/errors.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { RawDriver } from '../format/raw.js';
import { isNbdName } from '../nbd/name.js';
import { parseJson } from '../qobject/parser.js';
import { isDict } from '../qobject/value.js';
import { openBlockdev, type BlockdevContext } from './blockdev.js';
import { nodeFilename } from './filename.js';
import { probeFormat, PROBE_BYTES } from './formats.js';
import type { OptionTree } from './options.js';

export interface OpenedByName {
  readonly node: BlockNode;
  /**
   * The file's name where the format was not told, and nothing of a known one was found. Writes cannot make it look like
   * another one.
   */
  readonly guessedRaw: string | null;
}

/** `options` are BlockdevOptions without file and driver; `format` null probes. The node is pinned: remove it, or close the graph. */
export async function openByName(
  graph: BlockGraph, name: string, format: string | null, options: OptionTree = {}, context: BlockdevContext = {},
): Promise<OpenedByName> {
  const tree = name.startsWith('json:') ? jsonTree(name) : null;
  if (tree !== null) return openByOptions(graph, { ...options, ...tree, ...(format === null ? {} : { driver: format }) }, context);
  const file = await protocolOptions(name);
  if (format !== null) {
    const protocol = format === file.driver;
    return { node: await open(graph, protocol ? { ...options, ...file } : { ...options, driver: format, file }, context), guessedRaw: null };
  }
  return probeOn(graph, file, options, context);
}

/** A tree of options; where it tells no driver, the format of its `file` is probed. */
export async function openByOptions(graph: BlockGraph, tree: OptionTree, context: BlockdevContext = {}): Promise<OpenedByName> {
  const { file, driver, ...options } = tree;
  if (driver !== undefined) return { node: await open(graph, await withProtocols(tree), context), guessedRaw: null };
  if (typeof file === 'string') return { node: graph.lookUp(file), guessedRaw: null };
  if (typeof file !== 'object' || file === null) throw new BlockError('INVALID_ARGUMENT', 'Must specify either driver or file');
  const definition = file as OptionTree;
  const filename = definition['filename'];
  const protocol = definition['driver'] ?? (typeof filename === 'string' ? await protocolOf(filename) : undefined);
  return probeOn(graph, { ...definition, driver: protocol }, options, context);
}

/** Says `file` or `host_device` where a `file` child has a name only. */
async function withProtocols(tree: OptionTree): Promise<OptionTree> {
  const { file, driver, filename } = tree;
  if (typeof file === 'object' && file !== null && !Array.isArray(file)) return { ...tree, file: await withProtocols(file as OptionTree) };
  return driver === undefined && typeof filename === 'string' ? { ...tree, driver: await protocolOf(filename) } : tree;
}

async function probeOn(graph: BlockGraph, file: OptionTree, options: OptionTree, context: BlockdevContext): Promise<OpenedByName> {
  const { 'read-only': readOnly, 'cache.direct': direct, 'cache.no-flush': noFlush, 'force-share': forceShare } = options;
  const inherited = { 'read-only': readOnly, 'cache.direct': direct, 'cache.no-flush': noFlush, 'force-share': forceShare, discard: 'unmap' };
  const below = await open(graph, { ...inherited, ...file }, context);
  try {
    const found = await probe(below);
    const node = await open(graph, { ...options, driver: found, file: below.nodeName }, context);
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

const PROTOCOL_PREFIX = /^(?:file|host_device):/;

async function protocolOptions(name: string): Promise<{ readonly driver: string; readonly filename: string }> {
  refuseProtocol(name);
  const driver = await protocolOf(name);
  return { driver, filename: driver === 'nbd' ? name : name.replace(PROTOCOL_PREFIX, '') };
}

/** A word before a colon is a protocol, even where a file has such a name (`./a:b` is one). */
function refuseProtocol(name: string): void {
  const prefix = /^([^:/]*):/.exec(name)?.[1];
  if (prefix !== undefined && !isNbdName(name) && !PROTOCOL_PREFIX.test(name)) throw new BlockError('INVALID_ARGUMENT', `Unknown protocol '${prefix}'`);
}

async function protocolOf(name: string): Promise<string> {
  if (isNbdName(name)) return 'nbd';
  const found = await stat(name.replace(PROTOCOL_PREFIX, '')).catch(() => null);
  return found !== null && (found.isBlockDevice() || found.isCharacterDevice()) ? 'host_device' : 'file';
}

function jsonTree(name: string): OptionTree {
  const item = parseJson(name.slice('json:'.length));
  if (item.error !== undefined) throw new BlockError('INVALID_ARGUMENT', `Could not parse the JSON options: ${item.error}`);
  if (!isDict(item.value)) throw new BlockError('INVALID_ARGUMENT', 'Invalid JSON object given');
  return item.value as OptionTree;
}
