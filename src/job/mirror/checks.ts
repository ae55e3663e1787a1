/** What a mirror cannot be made of, in QEMU's words. */
import { isPowerOfTwo, MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { refuseAsBacking, refuseBlocked, type BlockGraph } from '../../block/graph.js';
import type { BlockNode } from '../../block/node.js';
import type { ControllerOptions } from './controller.js';
import type { MirrorOptions } from './mirror.js';

const MIN_GRANULARITY = 512;
const MAX_GRANULARITY = 64 * MiB;
/** Nobody looks at the target more often than that. */
const LEAST_GUEST_LATENCY_MS = 10;

export function checkMirror(graph: BlockGraph, options: MirrorOptions): void {
  const { source, target, granularity = 0, bufSize = 0, replaces, kind = 'mirror' } = options;
  if (granularity !== 0 && (granularity < MIN_GRANULARITY || granularity > MAX_GRANULARITY)) refuse("Parameter 'granularity' expects a value in range [512B, 64MB]");
  if (granularity !== 0 && !isPowerOfTwo(granularity)) refuse("Parameter 'granularity' expects a power of 2");
  if (kind === 'mirror') {
    for (const node of [source, target]) {
      refuseBlocked(node);
      refuseAsBacking(node);
    }
    if (replaces !== undefined && findReplaced(graph, source, replaces).length() !== source.length()) refuse('cannot replace image with a mirror image of different size');
  }
  if (options.verify === true && (options.sync === 'top' || options.sync === 'none')) refuse(`Sync mode '${options.sync}' leaves the target without what it is to be compared with`);
  if (bufSize < 0) refuse("Invalid parameter 'buf-size'");
  checkConvergence(options.convergence ?? {});
  if (withoutFilters(source) === withoutFilters(target)) refuse("Can't mirror node into itself");
}

function checkConvergence({ deadlineMs = 1, maxGuestLatencyMs = LEAST_GUEST_LATENCY_MS, throttleBelow = 0, minGuestRate = 0 }: ControllerOptions): void {
  const least: readonly [string, number, number][] = [
    ['deadline', deadlineMs, 1], ['max-guest-latency', maxGuestLatencyMs, LEAST_GUEST_LATENCY_MS], ['throttle-below', throttleBelow, 0], ['min-guest-rate', minGuestRate, 0],
  ];
  for (const [name, value, minimum] of least) if (!(value >= minimum)) refuse(`Parameter '${name}' expects a value of ${minimum} or more`);
}

/** A filter would show another node than the one below it, which the source reads. */
export function refuseFilterOnChain(source: BlockNode, target: BlockNode): void {
  if (onChain(source, withoutFilters(target))) refuse("Cannot mirror to a filter on top of a node in the source's backing chain");
}

function onChain(top: BlockNode, wanted: BlockNode): boolean {
  for (let node: BlockNode | null = top; node !== null; node = filteredBy(node) ?? node.backing) if (node === wanted) return true;
  return false;
}

/** The node whose users get the target: what the source shows must be what it shows. */
export function findReplaced(graph: BlockGraph, source: BlockNode, name: string): BlockNode {
  const node = graph.get(name);
  refuseBlocked(node);
  if (!shows(source, node)) {
    refuse(`Cannot replace '${name}' by a node mirrored from '${source.nodeName}', because it cannot be guaranteed that doing so would not lead to an abrupt change of visible data`);
  }
  return node;
}

export function shows(source: BlockNode, node: BlockNode): boolean {
  if (source === node) return true;
  if (source.driver.formatName === 'quorum') return source.children.some((child) => shows(child.node, node));
  const below = filteredBy(source);
  return below !== null && shows(below, node);
}

export function withoutFilters(node: BlockNode): BlockNode {
  const below = filteredBy(node);
  return below === null ? node : withoutFilters(below);
}

function filteredBy(node: BlockNode): BlockNode | null {
  if (node.driver.kind !== 'filter') return null;
  return node.children.find(({ role }) => role === 'filtered')?.node ?? null;
}

function refuse(why: string): never {
  throw new BlockError('INVALID_ARGUMENT', why);
}
