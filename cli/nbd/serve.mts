/** Opens the image, listens, and stays until the last client has gone or a signal comes. */
import {
  addressForListening, badSize, BlockError, openByOptions, openByQemuName, PidFile, restoreOpened, type BlockdevContext, type BlockGraph, type BlockNode, type NbdListenAddress,
  type OpenedByName, type OptionTree, type TlsCredentials,
} from '../../src/index.js';
import { tellReady } from '../background.mjs';
import { complain, ProgramError, writeNow } from '../program.mjs';
import { mayUnmap, type NbdProgramOptions } from './options.mjs';
import { overlayOn, withSnapshot } from './image.mjs';
import { parseImageOptions } from './image-options.mjs';
import { cacheOptions, isWritethrough, serveImage } from './session.mjs';

export interface ServeSetting {
  /** A listening socket came with the process. */
  readonly activated: boolean;
  readonly tls: TlsCredentials | null;
  /** Whether a client with a certificate of this subject may connect. */
  readonly authorize: ((subject: string) => boolean) | null;
  readonly context: BlockdevContext;
}

export async function serve(options: NbdProgramOptions, setting: ServeSetting): Promise<number> {
  await serveImage({
    address: addressOf(options, setting.activated),
    tls: setting.tls, authorize: setting.authorize,
    maxConnections: options.shared,
    persistent: options.persistent,
    onProblem: (why) => { if (options.verbose) complain(why); },
    open: (graph) => openImageOf(graph, options, setting.context),
    exported: {
      name: options.exportName ?? '',
      description: options.description ?? undefined,
      writable: !options.readOnly,
      writethrough: isWritethrough(options.cache),
      bitmaps: options.bitmaps,
      allocationDepth: options.allocationDepth,
    },
    ready: () => {
      if (options.pidFile !== null) PidFile.write(options.pidFile, process.pid);
      process.chdir('/');
      tellReady();
    },
    stop: stopSignal(),
  });
  return 0;
}

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
  return stop.signal;
}

function addressOf({ socket, bind, port }: NbdProgramOptions, activated: boolean): NbdListenAddress {
  if (activated) return { fd: 3 };
  if (socket !== null) return { unix: socket };
  return addressForListening({ type: 'inet', host: bind ?? '0.0.0.0', port: port ?? '10809', to: null });
}

async function openImageOf(graph: BlockGraph, options: NbdProgramOptions, context: BlockdevContext): Promise<BlockNode> {
  if (options.imageOpts && options.format !== null) throw new ProgramError('--image-opts and -f are mutually exclusive');
  const common = commonOptions(options);
  const open = (more: OptionTree): Promise<OpenedByName> => options.imageOpts
    ? openByOptions(graph, { ...common, ...parseImageOptions(options.file), ...more }, context)
    : openByQemuName(graph, options.file, options.format, { ...common, ...more }, context);
  const opened = await checkedAio(options, () => open({})).catch((error: unknown) => { throw ProgramError.of(`Failed to blk_new_open '${options.file}'`, error); });
  if (opened.guessedRaw !== null && !options.readOnly && !options.snapshot) writeNow(2, rawWarning(opened.guessedRaw));
  let { node } = opened;
  const restored = await restoreOpened(node).catch((error: unknown) => { throw ProgramError.of(`Failed to blk_new_open '${options.file}'`, error); });
  if (restored !== null) complain(restored);
  if (options.snapshot) node = await overlayOn(graph, node);
  if (options.offset > 0n) node = await windowOf(graph, node, options);
  if (options.loadSnapshot !== null) node = await withSnapshot(graph, node, options.loadSnapshot, open);
  if (options.detectZeroes !== 'off') node.detectZeroes = options.detectZeroes;
  return node;
}

/** Linux's own asynchronous I/O is that of direct I/O; how it is done here is not chosen. */
async function checkedAio({ aio, cache }: NbdProgramOptions, open: () => Promise<OpenedByName>): Promise<OpenedByName> {
  const direct = cacheOptions(cache ?? 'writeback')['cache.direct'] === true;
  if (aio === 'native' && !direct) throw new BlockError('INVALID_ARGUMENT', 'aio=native was specified, but it requires cache.direct=on, which was not specified.');
  return open();
}

function commonOptions(options: NbdProgramOptions): OptionTree {
  return {
    // the image below a temporary overlay is not written
    'read-only': options.readOnly || options.snapshot,
    ...cacheOptions(options.cache ?? 'writeback'),
    discard: mayUnmap(options) ? 'unmap' : 'ignore',
  };
}

function windowOf(graph: BlockGraph, node: BlockNode, { offset, readOnly }: NbdProgramOptions): Promise<BlockNode> {
  if (offset >= 2n ** 63n) throw badSize('offset');
  if (offset > BigInt(node.length())) throw new ProgramError(`Offset (${offset}) cannot be greater than size of the containing file (${node.length()})`);
  return openByOptions(graph, { driver: 'raw', file: node.nodeName, offset: Number(offset), 'read-only': readOnly }).then((opened) => opened.node);
}

function rawWarning(file: string): string {
  return `WARNING: Image format was not specified for '${file}' and probing guessed raw.\n` +
    '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
    "         Specify the 'raw' format explicitly to remove the restrictions.\n";
}
