/** Traces that go on, for viewers: a pipe, files that grow, a daemon. */
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { followTrace, LiveTrace, openTrace, wrapHostError } from '../src/index.js';
import { DaemonClient } from './daemon-client.mjs';

export interface LiveSource {
  readonly trace: LiveTrace;
  /** Ends what was begun for it. */
  close(): Promise<void>;
}

/** What a name stands for: `-` and FIFOs go on, so do the sockets of daemons. */
export async function kindOfSource(name: string): Promise<'stream' | 'daemon' | 'file'> {
  if (name === '-') return 'stream';
  const stats = await stat(name).catch(() => null);
  if (stats?.isSocket() === true) return 'daemon';
  return stats?.isFIFO() === true ? 'stream' : 'file';
}

export async function openLive(name: string, kind: 'stream' | 'daemon' | 'file', signal: AbortSignal): Promise<LiveSource> {
  if (kind === 'daemon') return openDaemon(name, signal);
  const trace = new LiveTrace(await openTrace(kind === 'file' ? followTrace(name, { signal }) : name));
  return { trace, close: async () => undefined };
}

interface TraceState {
  readonly recording: boolean;
  readonly files?: readonly string[];
}

/**
 * The trace that the daemon records already, or one that it records for as long as somebody looks: it is connected to us, so that it hears of
 * our end even where we are killed. Its monitor is left to others meanwhile.
 */
async function openDaemon(socket: string, signal: AbortSignal): Promise<LiveSource> {
  const { recording, files = [] } = await ask<TraceState>(socket, 'x-quiesce-query-trace', {}, signal);
  const [first] = recording ? files : [];
  const name = first?.replace(/\.blktrace\.\d+$/, '');
  if (name !== undefined) return { trace: await following(name, signal), close: async () => undefined };
  const folder = await mkdtemp(join(tmpdir(), 'quiesce-trace-'));
  const watcher = createServer();
  let started = false;
  const close = async (): Promise<void> => {
    // a daemon that is gone records nothing any more
    if (started) await ask(socket, 'x-quiesce-trace-stop').catch(() => undefined);
    watcher.close();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await listen(watcher, join(folder, 'watcher'));
    await ask(socket, 'x-quiesce-trace-start', { file: join(folder, 'trace'), watcher: join(folder, 'watcher') }, signal);
    started = true;
    return { trace: await following(join(folder, 'trace'), signal), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Who connects stays connected until either side ends. */
async function listen(server: Server, path: string): Promise<void> {
  server.on('connection', (socket) => socket.on('error', () => socket.destroy()).unref().resume());
  server.unref().listen(path);
  await once(server, 'listening').catch((error: unknown) => { throw wrapHostError(error, `Could not listen at '${path}'`); });
}

/** A daemon without I/O has no file yet. */
async function following(name: string, signal: AbortSignal): Promise<LiveTrace> {
  return new LiveTrace(await openTrace(followTrace(name, { signal, mayCome: true })));
}

async function ask<T>(socket: string, command: string, args: Record<string, unknown> = {}, signal?: AbortSignal): Promise<T> {
  const client = await DaemonClient.connect(socket, signal);
  try {
    return await client.execute<T>(command, args);
  } finally {
    client.close();
  }
}
