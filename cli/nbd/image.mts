/** What lies over or inside the image: a temporary overlay (-s), an internal snapshot (-l). */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BlockError, createImage, INTERNAL_SNAPSHOT, openByOptions, parseQemuOpts, type BlockGraph, type BlockNode, type OpenedByName, type OptionTree,
} from '../../src/index.js';
import { complain } from '../program.mjs';

/** Writes go to a file that has no name any more; it is gone with the process. */
export async function overlayOn(graph: BlockGraph, base: BlockNode): Promise<BlockNode> {
  const directory = mkdtempSync(join(process.env['TMPDIR'] ?? (tmpdir() === '/tmp' ? '/var/tmp' : tmpdir()), 'quiesce-nbd-'));
  try {
    const filename = join(directory, 'overlay');
    await createImage(filename, { format: 'qcow2', size: base.length() });
    const { node } = await openByOptions(graph, {
      driver: 'qcow2', file: { driver: 'file', filename }, backing: base.nodeName, 'cache.no-flush': true, discard: 'unmap',
    });
    base.pinned = false;
    return node;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Opens the image again, as of one of its snapshots. */
export async function withSnapshot(
  graph: BlockGraph, node: BlockNode, wanted: string, open: (more: OptionTree) => Promise<OpenedByName>,
): Promise<BlockNode> {
  const { id, name } = parseSnapshot(wanted);
  const snapshots = node.driver.snapshots?.list() ?? [];
  const found = wanted.startsWith('snapshot.')
    ? snapshots.find((snapshot) => (id === undefined || snapshot.id === id) && (name === undefined || snapshot.name === name))
    : snapshots.find((snapshot) => snapshot.id === wanted) ?? snapshots.find((snapshot) => snapshot.name === wanted);
  if (node.driver.snapshots === undefined) throw new BlockError('NOT_SUPPORTED', `Failed to load snapshot: Block format '${node.driver.formatName}' used by device '' does not support temporarily loading internal snapshots`);
  if (found === undefined) throw new BlockError('NOT_FOUND', "Failed to load snapshot: Can't find snapshot");
  await graph.remove(node.nodeName);
  return (await open({ [INTERNAL_SNAPSHOT]: found.id })).node;
}

const KNOWN = new Set(['snapshot.id', 'snapshot.name']);

/** Throws where it is neither a name nor the form with keys. */
export function parseSnapshot(wanted: string): { readonly id: string | undefined; readonly name: string | undefined } {
  if (!wanted.startsWith('snapshot.')) return { id: undefined, name: undefined };
  const { values } = parseQemuOpts(wanted, { known: KNOWN, warn: (text) => complain(`warning: ${text}`) });
  return { id: values.get('snapshot.id'), name: values.get('snapshot.name') };
}
