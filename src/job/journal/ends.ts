/** What a job's record tells of the two nodes that it works on, and whether they are the same ones again. */
import { createHash } from 'node:crypto';
import type { BlockNode } from '../../block/node.js';
import { fullOptions } from '../../image/filename.js';
import { identify, type FileIdentity } from './identity.js';
import type { JobEnd } from './record.js';

/** Before the job puts anything over the node. */
export async function endOf(node: BlockNode): Promise<JobEnd> {
  const shape = createHash('sha256').update(JSON.stringify(fullOptions(node), (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value))).digest('hex');
  return { nodeName: node.nodeName, shape, files: await filesBelow(node) };
}

/** Null where not all that lies below it are files. */
async function filesBelow(node: BlockNode): Promise<readonly FileIdentity[] | null> {
  const files: FileIdentity[] = [];
  for (const below of protocolNodes(node)) {
    const filename = below.driver.formatName === 'file' ? below.origin?.filename : undefined;
    const identity = filename === undefined ? null : await identify(filename, !below.readOnly);
    if (identity === null) return null;
    files.push(identity);
  }
  return files;
}

function protocolNodes(node: BlockNode): BlockNode[] {
  return node.driver.kind === 'protocol' ? [node] : node.children.flatMap((child) => protocolNodes(child.node));
}

/** Why a node that has the name of an interrupted job's is another one, or null. */
export function findOther(then: JobEnd, now: JobEnd): string | null {
  const inodes = ({ files }: JobEnd): string => JSON.stringify(files?.map(({ inode }) => inode));
  return then.shape === now.shape && inodes(then) === inodes(now) ? null : `node '${now.nodeName}' is made up in another way than before`;
}
