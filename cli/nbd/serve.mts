/** Opens the image, listens, and stays until the last client has gone or a signal comes. */
import { unlinkSync } from 'node:fs';
import { BlockBackend, BlockError, NbdServer, openImage, PidFile, wrapHostError, type CacheModeName, type NbdListenAddress } from '../../src/index.js';
import { tellReady } from '../background.mjs';
import { ProgramError } from '../program.mjs';
import { mayUnmap, type NbdProgramOptions } from './options.mjs';

const DEFAULT_PORT = '10809';

export async function serve(options: NbdProgramOptions, activated: boolean): Promise<number> {
  const stop = stopSignal();
  const server = new NbdServer({
    maxConnections: options.shared,
    onDisconnect: (connections, negotiated) => {
      if (negotiated && connections === 0 && !options.persistent) stop.now();
    },
  });
  await server.listen(addressOf(options, activated));
  const node = await open(options);
  server.addExport({
    name: options.exportName ?? '', description: options.description, backend: new BlockBackend('', node),
    readOnly: options.readOnly, multiConn: options.shared !== 1, bitmaps: [], allocationDepth: options.allocationDepth,
  });
  if (options.pidFile !== null) PidFile.write(options.pidFile, process.pid);
  process.chdir('/');
  tellReady();
  await stop.promise;
  await server.close();
  await node.close();
  if (options.socket !== null) removeSocket(options.socket);
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
  return socket === null ? { host: bind ?? '0.0.0.0', port: Number(port ?? DEFAULT_PORT) } : { unix: socket };
}

async function open(options: NbdProgramOptions) {
  const cache = options.cache === 'off' ? 'none' : options.cache ?? 'writeback';
  try {
    return await openImage(options.file, {
      format: options.format as 'raw' | 'qcow2' | null ?? undefined, readOnly: options.readOnly, cache: cache satisfies CacheModeName, backing: 'allow',
      discard: mayUnmap(options) ? 'unmap' : 'ignore', snapshot: options.loadSnapshot ?? undefined,
    });
  } catch (error) {
    throw new ProgramError(`Failed to blk_new_open '${options.file}': ${wrapHostError(error, 'Could not open').message}`);
  }
}

function removeSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (error instanceof BlockError) throw error;
  }
}
