/** The servers and the programs that load them: ours and qemu-nbd, which share a grammar, and fio's nbd engine. */
import { rmSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { runOk, start } from '../../test/support/run.js';

export interface ServerOptions {
  readonly image: string;
  readonly format: string;
  readonly cache: string;
  readonly socket: string;
}

export interface Server {
  readonly uri: string;
  stop(): Promise<void>;
}

/** `program` is qemu-nbd or one with its grammar. Resolves when the socket is there. */
export async function startServer(program: string, { image, format, cache, socket }: ServerOptions): Promise<Server> {
  rmSync(socket, { force: true });
  const child = start(program, ['-k', socket, '-f', format, `--cache=${cache}`, '-t', '-e', '8', image], { stdio: 'inherit' });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  for (let wait = 0; statSync(socket, { throwIfNoEntry: false }) === undefined; wait++) {
    if (child.exitCode !== null || wait > 4000) throw new Error(`${program} does not listen at '${socket}'`);
    await sleep(5);
  }
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    stop: async () => {
      child.kill('SIGTERM');
      await gone;
    },
  };
}

export interface Load {
  readonly name: string;
  /** fio's name of the pattern. */
  readonly rw: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
}

export interface LoadRun {
  readonly seconds: number;
  readonly bytes: number;
}

interface FioSide {
  readonly io_bytes: number;
  readonly bw_bytes: number;
}

/** One timed run of fio against a server, by fio's own clock; all connections together. */
export async function runLoad(uri: string, load: Load, imageBytes: number, connections: number, seconds: number): Promise<LoadRun> {
  const output = await runOk('fio', ['--name=load', '--ioengine=nbd', `--uri=${uri}`, `--rw=${load.rw}`, '--rwmixread=70', `--bs=${load.blockBytes}`,
    `--iodepth=${load.depth}`, `--size=${imageBytes}`, '--time_based', `--runtime=${seconds}`, `--numjobs=${connections}`, '--group_reporting',
    ...(load.rw === 'read' || load.rw === 'write' ? [`--offset_increment=${Math.floor(100 / connections)}%`] : []), '--randrepeat=1', '--output-format=json']);
  const report = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: [{ read: FioSide; write: FioSide; error: number }] };
  const { read, write, error } = report.jobs[0];
  if (error !== 0) throw new Error(`fio failed with ${error} on ${load.name}`);
  const bytes = read.io_bytes + write.io_bytes;
  return { bytes, seconds: bytes / (read.bw_bytes + write.bw_bytes) };
}

/** Seconds that a program takes to copy, from its start to its end; without certificates that this host would have every Node read first. */
export async function timedCopy(program: string, args: readonly string[]): Promise<number> {
  const started = performance.now();
  await runOk(program, args, { timeoutMs: 300_000, env: { NODE_EXTRA_CA_CERTS: '' } });
  return (performance.now() - started) / 1000;
}
