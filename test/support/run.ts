/** Child processes of tests and benchmarks: started, captured, and never left behind. */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface RunResult {
  /** Exit code, or null where a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Written to standard input, which is then closed. */
  readonly input?: string | Uint8Array;
  readonly timeoutMs?: number;
}

/** The repository, from this file or from a bundle of it. */
export const repository = findRepository(dirname(fileURLToPath(import.meta.url)));
export const launcher = join(repository, 'cli', 'quiesce');
export const nbdLauncher = join(repository, 'cli', 'quiesce-nbd');
export const storageDaemonLauncher = join(repository, 'cli', 'quiesce-storage-daemon');

function findRepository(from: string): string {
  return existsSync(join(from, 'package-lock.json')) ? from : findRepository(dirname(from));
}

/** Runs to the end. Any exit code is a result; only a missing binary or the timeout reject. */
export async function run(binary: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const child = start(binary, args, options);
  const { timeoutMs = 120_000 } = options;
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  // a child that ends without reading its input is its own affair
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(options.input ?? '');
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill('SIGKILL');
  }, timeoutMs);
  try {
    const [code, signal] = await ended(child, binary);
    const result = { code, signal, stdout: stdout(), stderr: stderr() };
    if (timedOut) throw new Error(`${binary} ${args.join(' ')} did not end in ${timeoutMs} ms: ${result.stdout}${result.stderr}`);
    return result;
  } finally {
    clearTimeout(timer);
  }
}

/** Like `run`, and rejects with all output unless the exit code is 0. Returns standard output. */
export async function runOk(binary: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await run(binary, args, options);
  if (result.code === 0) return result.stdout;
  const how = result.code === null ? `was ended by ${result.signal}` : `ended with ${result.code}`;
  throw new Error(`${binary} ${args.join(' ')} ${how}: ${result.stderr}${result.stdout}`);
}

export function quiesce(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(launcher, args, options);
}

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a child that is killed with this process at the latest. */
export function start(binary: string, args: readonly string[], options: Pick<RunOptions, 'cwd' | 'env'> & Pick<SpawnOptions, 'stdio'> = {}): ChildProcess {
  const child = spawn(binary, args, { cwd: options.cwd, env: { ...process.env, ...options.env }, stdio: options.stdio ?? 'pipe' });
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

/** Kills a child that `start` made and waits until it is gone. */
export async function kill(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  await gone;
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}

function ended(child: ChildProcess, binary: string): Promise<[number | null, NodeJS.Signals | null]> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`${binary} cannot be run: ${error.message}`, { cause: error })));
    child.once('close', (code, signal) => resolve([code, signal]));
  });
}
