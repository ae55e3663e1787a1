import type { BlockNode } from '../block/node.js';
import { openQcow2, Qcow2Driver } from '../format/qcow2/qcow2.js';
import { OVERLAP_LEVELS, OVERLAP_PARTS, overlapParts, type OverlapPart } from '../format/qcow2/overlap.js';
import type { Qcow2OpenOptions } from '../format/qcow2/options.js';
import type { DriverContext, DriverDefinition, OpenedDriver } from './drivers.js';
import { invalid, type NodeOptionsReader } from './options.js';

/** QEMU's default on Linux. */
const CLEAN_SECONDS = 600;
export const QCOW2_DRIVER: DriverDefinition = {
  name: 'qcow2',
  protocol: false,
  open: openQcow2Node,
  mutable: [
    'lazy-refcounts', 'pass-discard-request', 'pass-discard-snapshot', 'pass-discard-other', 'overlap-check', 'overlap-check.template',
    ...OVERLAP_PARTS.map((part) => `overlap-check.${part}`), 'cache-size', 'l2-cache-size', 'l2-cache-entry-size', 'refcount-cache-size', 'cache-clean-interval',
  ],
  reopen: ({ node, common, options }) => {
    const runtime = qcow2Runtime(options, common.discard);
    const { driver } = node;
    if (!(driver instanceof Qcow2Driver)) return {};
    const wanted = { ...runtime, readOnly: common.readOnly };
    driver.checkReopen(wanted);
    return { prepare: () => driver.prepareReopen(wanted) };
  },
};

/** Not QEMU's: the id of the internal snapshot to open, read-only. No QMP client can say it. */
export const INTERNAL_SNAPSHOT = 'x-quiesce-snapshot';

async function openQcow2Node(context: DriverContext): Promise<OpenedDriver> {
  const { common, options } = context;
  const file = await context.child('file', 'file');
  await refuseOther(file);
  const runtime = qcow2Runtime(options, common.discard);
  const driver = await openQcow2(file, {
    ...runtime,
    readOnly: common.readOnly,
    snapshot: options.string(INTERNAL_SNAPSHOT) ?? context.root?.snapshot,
    forCheck: context.root?.forCheck,
    onCorruption: ({ message, fatal, range }) => context.onEvent?.({
      event: 'BLOCK_IMAGE_CORRUPTED',
      data: { device: '', 'node-name': common.nodeName, msg: message, ...(range === null ? {} : { offset: range.offset, size: range.bytes }), fatal },
    }),
    openBacking: context.root?.noBacking === true ? undefined : (name, format) => context.backingOf(file.name, name, format),
    overrideBacking: context.defines('backing') ? () => context.optionalChild('backing', 'backing') : undefined,
  });
  return { driver };
}

const MAGIC = Buffer.from('QFI\u00fb', 'latin1');

async function refuseOther(file: BlockNode): Promise<void> {
  const start = new Uint8Array(4);
  if (file.length() >= start.byteLength) await file.read(0, start);
  if (!MAGIC.every((byte, index) => start[index] === byte)) throw invalid('Image is not in qcow2 format');
}

/** The options that may change while the image is open. */
function qcow2Runtime(options: NodeOptionsReader, discard: 'ignore' | 'unmap'): Qcow2OpenOptions {
  const caches = cacheSizes(options);
  const lazyRefcounts = options.bool('lazy-refcounts');
  const overlap = readOverlapCheck(options);
  const passes = {
    request: options.bool('pass-discard-request', discard === 'unmap'),
    snapshot: options.bool('pass-discard-snapshot', true),
    other: options.bool('pass-discard-other', false),
  };
  const cacheCleanInterval = options.number('cache-clean-interval') ?? CLEAN_SECONDS;
  const data = options.take('data-file');
  if (data !== undefined && data !== null) throw invalid("'data-file' can only be set for images with an external data file");
  return { ...caches, cacheCleanInterval, lazyRefcounts, passDiscard: passes, overlapParts: overlap };
}

function cacheSizes(options: NodeOptionsReader): Pick<Qcow2OpenOptions, 'cacheSize' | 'l2CacheSize' | 'refcountCacheSize' | 'l2CacheEntrySize'> {
  return {
    cacheSize: options.size('cache-size'), l2CacheSize: options.size('l2-cache-size'),
    refcountCacheSize: options.size('refcount-cache-size'), l2CacheEntrySize: options.size('l2-cache-entry-size'),
  };
}

/** Which metadata a write must not hit: a level, and single parts that depart from it. */
function readOverlapCheck(options: NodeOptionsReader): ReadonlySet<OverlapPart> {
  const short = options.take('overlap-check');
  const template = options.take('overlap-check.template');
  const level = short ?? template ?? 'cached';
  if (short !== undefined && template !== undefined && short !== template) {
    throw invalid(`Conflicting values for qcow2 options 'overlap-check' ('${String(short)}') and 'overlap-check.template' ('${String(template)}')`);
  }
  const known = OVERLAP_LEVELS.find((one) => one === level);
  const parts = new Set(overlapParts(known));
  for (const part of OVERLAP_PARTS) {
    if (options.bool(`overlap-check.${part}`, parts.has(part))) parts.add(part);
    else parts.delete(part);
  }
  if (known === undefined) {
    throw invalid(`Unsupported value '${String(level)}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all`);
  }
  return parts;
}
