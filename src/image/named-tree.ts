/** Images whose names stand for a tree of nodes, in a graph of its own: `json:{…}`, `blkdebug:…`. */
import { BlockError } from '../base/errors.js';
import { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { CACHE_MODES } from '../protocol/cache-mode.js';
import { openTree } from './blockdev.js';
import { imageOptions } from './image-name.js';
import type { OpenImageOptions } from './open.js';

/** Closing the node closes all of the tree. */
export async function openNamedTree(filename: string, options: OpenImageOptions, readOnly: boolean): Promise<BlockNode> {
  const mode = CACHE_MODES[options.cache ?? 'writeback'];
  const graph = new BlockGraph();
  let node: BlockNode | null = null;
  try {
    const flat = await imageOptions(filename);
    const otherwise = {
      driver: options.format, 'read-only': readOnly, 'cache.direct': mode.direct, 'cache.no-flush': mode.noFlush, 'force-share': options.forceShare ?? false,
      discard: options.discard ?? 'unmap', 'lazy-refcounts': options.lazyRefcounts, 'l2-cache-size': options.l2CacheSize,
    };
    for (const [name, value] of Object.entries(otherwise)) if (value !== undefined && !flat.has(name)) flat.set(name, value);
    node = await openTree(graph, flat, { backing: options.backing ?? 'same-dir', trace: options.trace, signal: options.signal },
      { writethrough: mode.writethrough, snapshot: options.snapshot, forCheck: options.forCheck, noBacking: options.noBacking });
    const used = Permission.CONSISTENT_READ | (node.readOnly ? 0 : Permission.WRITE | Permission.RESIZE);
    const shared = options.forceShare === true ? Permission.ALL : Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED;
    await graph.attach(node, { used, shared });
    return node;
  } catch (error) {
    await node?.close().catch(() => {});
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.code, `Could not open '${filename}': ${error.message}`, { node: filename, errno: error.errno, cause: error });
  }
}
