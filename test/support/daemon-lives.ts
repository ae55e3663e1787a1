/** A storage daemon that keeps its jobs, is killed, and starts again with the same nodes; a guest that writes while it lives. */
import { readFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach } from '@jest/globals';
import { NbdClient, QmpClient } from '../../src/index.js';
import { waitFor } from './cli.js';
import { kill, start, storageDaemonLauncher } from './run.js';

interface JobState {
  readonly device: string;
  readonly ready: boolean;
  readonly offset: number;
  readonly len: number;
  readonly status: string;
  readonly 'x-quiesce-convergence'?: { readonly phase: string; readonly deadline?: number };
}

export interface DaemonLife {
  readonly qmp: QmpClient;
  /** What it said of jobs. */
  said(): string;
  job(): Promise<JobState | undefined>;
  /** kill -9, or whatever. */
  end(signal?: NodeJS.Signals): Promise<void>;
}

/** `nodes`: options that come before the state directory. The node `source` is exported as `disk`. */
export function useDaemonLives(tmp: (name?: string) => string): (nodes: readonly string[]) => Promise<DaemonLife> {
  const running = new Set<ChildProcess>();
  afterEach(async () => {
    for (const child of running) await kill(child);
    running.clear();
  });
  return async (nodes) => {
    const socket = tmp('monitor');
    const child = start(storageDaemonLauncher, [
      ...nodes, '--state-dir', `${tmp('state')},checkpoint=0.3`,
      '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`, '--export', 'type=nbd,id=e,node-name=source,name=disk,writable=on',
      '--chardev', `socket,id=m,path=${socket},server=on,wait=off`, '--monitor', 'chardev=m', '--pidfile', tmp('pid'),
    ]);
    running.add(child);
    let said = '';
    child.stderr!.on('data', (data: Buffer) => { said += data.toString(); });
    let qmp: QmpClient | null = null;
    await waitFor('the daemon listens', async () => {
      if (child.exitCode !== null) throw new Error(`the daemon did not start: ${said}`);
      if (!isOf(child, tmp('pid'))) return false;
      return (qmp = await QmpClient.connect(socket).catch(() => null)) !== null;
    });
    const monitor: QmpClient = qmp!;
    return {
      qmp: monitor, said: () => said,
      job: async () => (await monitor.execute('query-block-jobs') as JobState[])[0],
      end: async (signal = 'SIGKILL') => {
        monitor.close();
        await kill(child, signal);
        running.delete(child);
      },
    };
  };
}

/** All is set up. */
function isOf(child: ChildProcess, pidFile: string): boolean {
  try {
    return Number(readFileSync(pidFile, 'latin1')) === child.pid;
  } catch {
    return false;
  }
}

/** Writes here and there within the first `bytes` until it is stopped, or the server is gone. */
/** `pauseMs`: between its writes. */
export function startGuest(socket: string, bytes: number, seed: number, pauseMs = 0): { stop(): Promise<number> } {
  let stopped = false;
  const writing = (async (): Promise<number> => {
    const client = await NbdClient.open({ address: { type: 'unix', path: socket }, exportName: 'disk' });
    let written = 0;
    try {
      for (let n = 1; n < 1_000_000 && !stopped; n++) {
        await client.write((n * 7919 * 512 * seed) % bytes, Buffer.alloc(512, (n + seed) % 251 + 1));
        written++;
        if (n % 50 === 0) await client.flush();
        if (pauseMs > 0) await sleep(pauseMs);
      }
    } catch {
      // it was killed
    } finally {
      await client.close().catch(() => undefined);
    }
    return written;
  })();
  return { stop: () => {
    stopped = true;
    return writing;
  } };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}
