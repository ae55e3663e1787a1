/** The filter that keeps what guests overwrite, and what shows it, as drivers of a node tree. */
import { findBitmap, mergeable } from '../block/bitmap-verbs.js';
import { BlockError } from '../base/errors.js';
import type { DirtyBitmap } from '../block/dirty-bitmap.js';
import type { BlockGraph } from '../block/graph.js';
import { NO_USE, Permission } from '../block/permissions.js';
import { CopyBeforeWriteFilter } from '../filter/copy-before-write.js';
import { SnapshotAccessDriver } from '../filter/snapshot-access.js';
import type { DriverContext, DriverDefinition, OpenedDriver } from './drivers.js';
import { nodeFilename } from './filename.js';

export const SNAPSHOT_DRIVERS: readonly DriverDefinition[] = [
  { name: 'copy-before-write', protocol: false, open: openCopyBeforeWrite },
  { name: 'snapshot-access', protocol: false, open: openSnapshotAccess },
];

async function openCopyBeforeWrite(context: DriverContext): Promise<OpenedDriver> {
  const { options, graph } = context;
  const strong = { 'on-cbw-error': options.string('on-cbw-error'), 'cbw-timeout': options.number('cbw-timeout') };
  const [node, name] = [options.string('bitmap.node'), options.string('bitmap.name')];
  const child = await context.child('file', 'filtered');
  const target = await context.child('target', 'data', { used: Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
  const bitmap = node === undefined || name === undefined ? null : lookUp(graph, node, name);
  if (bitmap !== null) {
    const refusal = mergeable(bitmap, child.length());
    if (refusal !== null) throw new BlockError(refusal.code, `Cannot create block-copy-state: Failed to merge bitmap '${bitmap.name}' to internal copy-bitmap: ${refusal.message}`, { cause: refusal });
  }
  const driver = new CopyBeforeWriteFilter({
    child, target, bitmap, onError: strong['on-cbw-error'] === 'break-snapshot' ? 'break-snapshot' : 'break-guest-write', timeoutMs: (strong['cbw-timeout'] ?? 0) * 1000,
  });
  return { driver, origin: { strong, plainName: nodeFilename(child) } };
}

async function openSnapshotAccess(context: DriverContext): Promise<OpenedDriver> {
  const child = await context.child('file', 'data', NO_USE);
  return { driver: new SnapshotAccessDriver({ child }), origin: { plainName: nodeFilename(child) } };
}

function lookUp(graph: BlockGraph, node: string, name: string): DirtyBitmap {
  const found = graph.find(node);
  if (found === undefined) throw new BlockError('NOT_FOUND', `Node '${node}' not found`);
  return findBitmap(found, name);
}
