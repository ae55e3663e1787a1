/** Opens the image, listens, and stays until the last client has gone or a signal comes. */
import { rmSync } from 'node:fs';
import {
  addressForListening, BlockExports, BlockGraph, messageOf, openByName, openByOptions, PidFile, type BlockdevContext, type BlockNode,
  type NbdListenAddress, type OpenedByName, type OptionTree, type TlsCredentials,
} from '../../src/index.js';
import { tellReady } from '../background.mjs';
import { complain, ProgramError, writeNow } from '../program.mjs';
import { mayUnmap, type NbdProgramOptions } from './options.mjs';
import { overlayOn, withSnapshot } from './image.mjs';
import { parseImageOptions } from './image-options.mjs';

const EXPORT_ID = 'qemu-nbd-export';

export interface ServeSetting {
  /** A listening socket came with the process. */
  readonly activated: boolean;
  readonly tls: TlsCredentials | null;
  readonly context: BlockdevContext;
}

export async function serve(options: NbdProgramOptions, setting: ServeSetting): Promise<number> {
  const stop = stopSignal();
  const graph = new BlockGraph();
  const exports = new BlockExports(graph, () => undefined, {
    onDisconnect: (connections, negotiated) => {
      if (negotiated && connections === 0 && !options.persistent) stop.now();
    },
    onProblem: (why) => { if (options.verbose) complain(why); },
  });
  try {
    await exports.startServer({ address: addressOf(options, setting.activated), tls: setting.tls, maxConnections: options.shared, held: true });
    const node = await openImageOf(graph, options, setting.context);
    await addExport(exports, node, options);
    exports.admit();
    if (options.pidFile !== null) PidFile.write(options.pidFile, process.pid);
    process.chdir('/');
    tellReady();
    await stop.promise;
  } finally {
    await exports.close();
    await graph.closeAll();
    if (options.socket !== null) rmSync(options.socket, { force: true });
  }
  return 0;
}

interface Stop {
  now(): void;
  readonly promise: Promise<void>;
}

function stopSignal(): Stop {
  let now = (): void => undefined;
  const promise = new Promise<void>((resolve) => { now = resolve; });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, now);
  return { now, promise };
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
    : openByName(graph, options.file, options.format, { ...common, ...more }, context);
  const opened = await open({}).catch((error: unknown) => { throw new ProgramError(`Failed to blk_new_open '${options.file}': ${messageOf(error)}`); });
  if (opened.guessedRaw && !options.readOnly) writeNow(2, rawWarning(options.file));
  let { node } = opened;
  if (options.snapshot) node = await overlayOn(graph, node);
  if (options.offset > 0n) node = await windowOf(graph, node, options);
  if (options.loadSnapshot !== null) node = await withSnapshot(graph, node, options.loadSnapshot, open);
  if (options.detectZeroes !== 'off') node.detectZeroes = options.detectZeroes;
  return node;
}

function commonOptions(options: NbdProgramOptions): OptionTree {
  const cache = options.cache ?? 'writeback';
  return {
    // the image below a temporary overlay is not written
    'read-only': options.readOnly || options.snapshot,
    'cache.direct': cache === 'none' || cache === 'off' || cache === 'directsync',
    'cache.no-flush': cache === 'unsafe',
    discard: mayUnmap(options) ? 'unmap' : 'ignore',
  };
}

function windowOf(graph: BlockGraph, node: BlockNode, { offset, readOnly }: NbdProgramOptions): Promise<BlockNode> {
  if (offset > BigInt(node.length())) throw new ProgramError(`Offset (${offset}) cannot be greater than size of the containing file (${node.length()})`);
  return openByOptions(graph, { driver: 'raw', file: node.nodeName, offset: Number(offset), 'read-only': readOnly }).then((opened) => opened.node);
}

async function addExport(exports: BlockExports, node: BlockNode, options: NbdProgramOptions): Promise<void> {
  await exports.add({
    id: EXPORT_ID,
    nodeName: node.nodeName,
    name: options.exportName ?? '',
    description: options.description ?? undefined,
    writable: !options.readOnly,
    writethrough: options.cache === 'writethrough' || options.cache === 'directsync',
    bitmaps: options.bitmaps,
    allocationDepth: options.allocationDepth,
  });
}

function rawWarning(file: string): string {
  return `WARNING: Image format was not specified for '${file}' and probing guessed raw.\n` +
    '         The guest could write a header of another format into the image, which then would be believed when it is opened again.\n' +
    "         Name the format with -f raw.\n";
}
