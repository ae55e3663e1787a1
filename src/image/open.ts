/** Opens and makes images: file, format and backing chain, wired to nodes. */
// what comes by this getter is loaded when it is used: it costs a program that only speaks NBD some milliseconds
import { promises as files } from 'node:fs';
import path from 'node:path';
import { BlockError } from '../base/errors.js';
import type { BlockDriver } from '../block/driver.js';
import { BlockNode } from '../block/node.js';
import { resolveBackingName, type BackingPolicy } from './backing-name.js';
import { FORMATS, probeFormat, PROBE_BYTES, type FormatName } from './formats.js';
import type { Qcow2CreateOptions } from '../format/qcow2/options.js';
import { RawDriver } from '../format/raw.js';
import { CACHE_MODES, type CacheModeName } from '../protocol/cache-mode.js';
import { isNbdName } from '../nbd/name.js';
import type { FileOptions } from '../protocol/file.js';
import { MemoryDriver } from '../protocol/memory.js';
import type { TraceSink } from '../trace/sink.js';
import { isTreeName } from './tree-name.js';

const MAX_CHAIN_DEPTH = 200;

export interface OpenImageOptions {
  readonly format?: FormatName | undefined;
  readonly readOnly?: boolean | undefined;
  readonly cache?: CacheModeName | undefined;
  readonly locking?: 'auto' | 'on' | 'off' | undefined;
  /** Read-only beside a writer (-U). */
  readonly forceShare?: boolean | undefined;
  /** Default `same-dir`. */
  readonly backing?: BackingPolicy | undefined;
  /** Open without the backing file: what it would give reads as zeros. Read-only, for tools that look at metadata only. */
  readonly noBacking?: boolean | undefined;
  /** Open this internal snapshot (id or name), read-only. */
  readonly snapshot?: string | undefined;
  readonly l2CacheSize?: number | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  readonly discard?: 'ignore' | 'unmap' | undefined;
  readonly forCheck?: boolean | undefined;
  /** Connections to an NBD server that allows several. Default 1. */
  readonly connections?: number | undefined;
  /** Gives an NBD server up, also later: what is under way then fails with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  readonly trace?: TraceSink | null | undefined;
}

export type CreateImageOptions = Omit<Qcow2CreateOptions, 'size'> & {
  readonly format: FormatName;
  /** May be left out with a backing file: its size is taken. */
  readonly size?: number | undefined;
  readonly backing?: BackingPolicy | undefined;
  /** Record the backing file without opening it (qemu-img create -u). */
  readonly backingUnchecked?: boolean | undefined;
};

/** Opens an image and its backing chain. Closing the node closes all of it. */
export function openImage(name: string, options: OpenImageOptions = {}): Promise<BlockNode> {
  const filename = name.startsWith('file:') ? name.slice('file:'.length) : name;
  return openAt(filename, options, [path.resolve(filename)]);
}

async function openAt(filename: string, options: OpenImageOptions, chain: readonly string[]): Promise<BlockNode> {
  const readOnly = (options.readOnly ?? false) || options.snapshot !== undefined;
  if (options.noBacking === true && !readOnly && options.forCheck !== true) {
    throw new BlockError('INVALID_ARGUMENT', `Could not open '${filename}': without its backing file an image can only be read`, { node: filename });
  }
  if (isTreeName(filename)) {
    // Loaded only now, as most programs open files
    const { openNamedTree } = await import('./named-tree.js');
    return openNamedTree(filename, options, readOnly);
  }
  const mode = CACHE_MODES[options.cache ?? 'writeback'];
  const driver = isNbdName(filename) ? await openExport(filename, { readOnly, connections: options.connections, signal: options.signal }) : await openFile(filename, {
    readOnly, direct: mode.direct, locking: options.locking ?? 'auto', forceShare: options.forceShare ?? false,
  });
  const file = new BlockNode({ name: filename, driver, readOnly, noFlush: mode.noFlush, trace: options.trace });
  try {
    const format = options.format ?? await probe(file);
    const common = { readOnly, writethrough: mode.writethrough, trace: options.trace };
    if (format === 'raw') return new BlockNode({ name: `${filename} (raw)`, driver: rawDriver(file, options.format === undefined && !readOnly), ...common });
    const { openQcow2 } = await import('../format/qcow2/qcow2.js');
    const qcow2 = await openQcow2(file, {
      ...options, readOnly,
      openBacking: options.noBacking === true ? undefined : (name, backingFormat) => openBacking(filename, name, backingFormat, options, chain),
    });
    return new BlockNode({ name: filename, driver: qcow2, ...common });
  } catch (error) {
    await file.close().catch(() => {});
    throw error;
  }
}

function rawDriver(file: BlockNode, guessed: boolean): RawDriver {
  const driver = new RawDriver(file);
  if (guessed) driver.guardFirstSector();
  return driver;
}

/** Loads only now what this image needs: a copy between servers has no file, and most programs no server. */
async function openExport(name: string, options: { readonly readOnly: boolean; readonly connections?: number | undefined; readonly signal?: AbortSignal | undefined }): Promise<BlockDriver> {
  const { openNbdName } = await import('../protocol/nbd.js');
  return openNbdName(name, options);
}

async function openFile(name: string, options: FileOptions): Promise<BlockDriver> {
  const { openFileDriver } = await import('../protocol/file.js');
  return openFileDriver(name, options);
}

async function probe(file: BlockNode): Promise<FormatName> {
  const start = new Uint8Array(PROBE_BYTES);
  await file.read(0, start);
  return probeFormat(start);
}

async function openBacking(
  overlay: string, name: string, format: string | null, options: OpenImageOptions, chain: readonly string[],
): Promise<BlockNode> {
  const filename = resolveBackingName(overlay, name, options.backing ?? 'same-dir');
  const resolved = path.resolve(filename);
  if (chain.includes(resolved)) throw new BlockError('INVALID_IMAGE', `the backing chain of '${chain[0]}' loops: '${overlay}' is backed by '${filename}'`, { node: overlay });
  if (chain.length >= MAX_CHAIN_DEPTH) throw new BlockError('INVALID_IMAGE', `the backing chain of '${chain[0]}' has more than ${MAX_CHAIN_DEPTH} images`, { node: overlay });
  if (format !== null && !FORMATS.some((known) => known.name === format)) {
    throw new BlockError('NOT_SUPPORTED', `the backing file of '${overlay}' has format '${format.slice(0, 64)}', which this engine does not have`, { node: overlay });
  }
  const { cache, locking, forceShare, backing, l2CacheSize, signal, trace } = options;
  return openAt(filename, { cache, locking, forceShare, backing, l2CacheSize, signal, trace, format: (format ?? undefined) as FormatName | undefined, readOnly: true },
    [...chain, resolved]);
}

/** Makes an image file; an existing file is replaced once its lock is held. */
export async function createImage(filename: string, options: CreateImageOptions): Promise<{ readonly size: number }> {
  const size = options.size ?? await backingSize(filename, options);
  if (options.format === 'raw' && options.backingFile !== undefined) throw new BlockError('INVALID_ARGUMENT', "Backing file not supported for file format 'raw'");
  if (options.backingFile !== undefined && options.size !== undefined && options.backingUnchecked !== true) await backingSize(filename, options);
  if (options.backingUnchecked === true && options.backingFile !== undefined && await isSameFile(resolveBackingName(filename, options.backingFile, 'allow'), filename)) {
    throw ownBacking(filename);
  }
  if (options.format === 'qcow2') await createQcow2Image(filename, { ...options, size });
  else await inNewFile(filename, async ({ driver }) => driver.resize?.(size, options.preallocation));
  return { size };
}

async function createQcow2Image(filename: string, options: Qcow2CreateOptions): Promise<void> {
  const { createQcow2 } = await import('../format/qcow2/create.js');
  const { preallocateQcow2 } = await import('../format/qcow2/qcow2.js');
  // Refuses bad options before anything is touched
  await createQcow2(new BlockNode({ name: filename, driver: new MemoryDriver(), trace: null }), options);
  await inNewFile(filename, async (file) => {
    await createQcow2(file, options);
    await preallocateQcow2(file, options.preallocation);
  });
}

async function inNewFile(filename: string, make: (file: BlockNode) => Promise<void>): Promise<void> {
  const file = new BlockNode({ name: filename, driver: await openFile(filename, { create: true }) });
  try {
    await make(file);
  } finally {
    await file.close();
  }
}

/** The size of the backing file; refuses a chain that the new image would be part of, since creating it would empty that file. */
async function backingSize(filename: string, options: CreateImageOptions): Promise<number> {
  if (options.backingFile === undefined) throw new BlockError('INVALID_ARGUMENT', `Could not create '${filename}': image creation needs a size parameter`);
  const name = resolveBackingName(filename, options.backingFile, options.backing ?? 'same-dir');
  const node = await openImage(name, { readOnly: true, forceShare: true, format: options.backingFormat as FormatName | undefined, backing: options.backing });
  try {
    for (let layer: BlockNode | null = node; layer !== null; layer = layer.backing) {
      if (await isSameFile(layer.children[0]!.name, filename)) throw ownBacking(filename);
    }
    return node.length();
  } finally {
    await node.close();
  }
}

function ownBacking(filename: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', `Could not create '${filename}': it would be its own backing file`, { node: filename });
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  const [first, second] = await Promise.all([files.stat(a).catch(() => null), files.stat(b).catch(() => null)]);
  return first !== null && second !== null && first.dev === second.dev && first.ino === second.ino;
}
