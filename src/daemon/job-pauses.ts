/**
 * While a node is drained, QEMU's jobs that work on it or on what lies above it stand still, and clients are told of it. Ours
 * need not stand still for that: a drained section keeps their requests back. So this is about what is told, and about
 * nothing being under way when a command looks at a disk.
 */
import type { BlockNode } from '../block/node.js';
import { BlockChild } from '../block/child.js';
import type { BlockJob, BlockJobs } from '../job/block-job.js';

/** A job whose target does not answer stands still for nobody; a command is not to hang because of it. */
const PATIENCE_MS = 1000;

/** Runs `section` while the jobs of `nodes`, or all, stand still. */
export async function whileJobsPause<T>(jobs: BlockJobs, nodes: readonly BlockNode[] | 'all', section: () => Promise<T>): Promise<T> {
  const held = concerned(jobs, nodes);
  if (held.length === 0) return section();
  for (const { job } of held) job.holdPaused();
  try {
    await inTime(jobs, held.map(({ job }) => job.standsStill()));
    return await section();
  } finally {
    for (const { job } of held) job.releasePaused();
    await inTime(jobs, held.map(({ job }) => job.goesOn()));
  }
}

/** A drained section in which nothing happens. */
export function pauseJobs(jobs: BlockJobs, nodes: readonly BlockNode[] | 'all'): Promise<void> {
  return whileJobsPause(jobs, nodes, async () => {});
}

/** Whenever somebody lets go of a node QEMU drains it twice. */
export async function drainAtRelease(jobs: BlockJobs, node: BlockNode): Promise<void> {
  for (let times = 0; times < 2; times++) await pauseJobs(jobs, [node]);
}

/** `nodes` and all that lie below them. */
export function subtrees(nodes: readonly BlockNode[]): BlockNode[] {
  return nodes.flatMap((node) => [node, ...subtrees(node.children.map((child) => child.node))]);
}

/** Oldest first. */
function concerned(jobs: BlockJobs, nodes: readonly BlockNode[] | 'all'): BlockJob[] {
  const oldestFirst = jobs.list().toReversed();
  if (nodes === 'all') return oldestFirst;
  const drained = new Set<BlockNode>();
  for (const node of nodes) addAbove(node, drained);
  return oldestFirst.filter((job) => job.nodes.some(({ node }) => drained.has(node)));
}

function addAbove(node: BlockNode, into: Set<BlockNode>): void {
  if (into.has(node)) return;
  into.add(node);
  for (const user of node.parents) if (user instanceof BlockChild && user.parent !== null) addAbove(user.parent, into);
}

async function inTime({ clock }: BlockJobs, all: readonly Promise<void>[]): Promise<void> {
  const timer = new AbortController();
  await Promise.race([Promise.all(all), clock.sleep(PATIENCE_MS, timer.signal)]);
  timer.abort();
}
