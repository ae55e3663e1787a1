/** Traces that go on, for viewers: a pipe, files that grow, a daemon. */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { followTrace, LiveTrace, openTrace } from '../src/index.js';
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

/** The trace that the daemon records already, or one that it records for as long as somebody looks. */
async function openDaemon(socket: string, signal: AbortSignal): Promise<LiveSource> {
  const client = await DaemonClient.connect(socket, signal);
  let folder: string | null = null;
  const close = async (): Promise<void> => {
    if (folder !== null) await client.execute('x-quiesce-trace-stop').catch(() => undefined);
    client.close();
    if (folder !== null) await rm(folder, { recursive: true, force: true });
  };
  try {
    const { recording, files = [] } = await client.execute<TraceState>('x-quiesce-query-trace');
    const [first] = recording ? files : [];
    let name = first?.replace(/\.blktrace\.\d+$/, '');
    if (name === undefined) {
      const made = await mkdtemp(join(tmpdir(), 'quiesce-trace-'));
      name = join(made, 'trace');
      await client.execute('x-quiesce-trace-start', { file: name }).catch(async (error: unknown) => {
        await rm(made, { recursive: true, force: true });
        throw error;
      });
      folder = made;
    }
    // a daemon without I/O has no file yet
    return { trace: new LiveTrace(await openTrace(followTrace(name, { signal, mayCome: true }))), close };
  } catch (error) {
    await close();
    throw error;
  }
}
