/** What end-to-end tests of the command line share: commands that run beside the test, one-line errors, images as QEMU sees them. */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { expect } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { launcher, quiesce, run, runOk, start, type RunResult } from './run.js';

export const KiB = 1024;
export const MiB = 1024 * KiB;

export interface RunningCommand {
  readonly child: ChildProcess;
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly done: Promise<RunResult>;
}

/** Starts the launcher; standard input stays open for the test to write into. */
export function startQuiesce(args: readonly string[], options: Pick<SpawnOptions, 'stdio'> = {}): RunningCommand {
  const child = start(launcher, args, options);
  const parts = { stdout: '', stderr: '' };
  child.stdout?.on('data', (data: Buffer) => { parts.stdout += data.toString(); });
  child.stderr?.on('data', (data: Buffer) => { parts.stderr += data.toString(); });
  // a command that ends without reading its input is its own affair
  child.stdin?.on('error', () => undefined);
  const done = new Promise<RunResult>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, ...parts }));
  });
  return { child, stdout: () => parts.stdout, stderr: () => parts.stderr, done };
}

/** Runs a command that must succeed; returns its standard output. */
export async function quiesceOk(args: readonly string[], options: Parameters<typeof quiesce>[1] = {}): Promise<string> {
  return runOk(launcher, args, { timeoutMs: 120_000, ...options });
}

/** What a command with --json says last. */
export function lastLine(stdout: string): Readonly<Record<string, unknown>> {
  return JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Readonly<Record<string, unknown>>;
}

/** A monitor's own client, as soon as somebody listens there. */
export async function monitorOf(path: string): Promise<QmpClient> {
  let connected: QmpClient | null = null;
  await waitFor(`somebody listens at ${path}`, async () => (connected = await QmpClient.connect(path).catch(() => null)) !== null);
  return connected!;
}

/** The one line that a failing command says, without `quiesce: `. */
export function oneLineError(result: RunResult, code = 1): string {
  expect(result).toMatchObject({ code, stdout: '' });
  expect(result.stderr).toMatch(/^quiesce: [^\n]+\n$/);
  return result.stderr.slice('quiesce: '.length).trimEnd();
}

export async function expectRefused(args: readonly string[], message: string | RegExp, code = 1): Promise<void> {
  const line = oneLineError(await quiesce(args), code);
  if (typeof message === 'string') expect(line).toContain(message);
  else expect(line).toMatch(message);
}

export async function makeImage(path: string, size = '64M', ...options: string[]): Promise<string> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, size]);
  return path;
}

/** Names of the snapshots, as QEMU lists them. */
export async function snapshotNames(path: string): Promise<string[]> {
  const info = JSON.parse(await runOk('qemu-img', ['info', '-U', '--output=json', '-f', 'qcow2', path])) as { snapshots?: { name: string }[] };
  return (info.snapshots ?? []).map(({ name }) => name);
}

/** QEMU finds no corruption, and nothing at all once it has given leaked clusters back. */
export async function leaksAtMost(path: string): Promise<void> {
  const found = await run('qemu-img', ['check', '-f', 'qcow2', path]);
  if (found.code === 0) return;
  expect([found.code, found.stdout]).toEqual([3, expect.any(String)]);
  await runOk('qemu-img', ['check', '-q', '-r', 'leaks', '-f', 'qcow2', path]);
  await runOk('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
}

/** Somebody holds image locks on the file; unlike an attempt to open it, looking does not get in their way. */
export function isLocked(path: string): boolean {
  return readFileSync('/proc/locks', 'utf8').includes(`:${statSync(path).ino} `);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export async function waitFor(what: string, met: () => boolean | Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!await met()) {
    if (performance.now() > deadline) throw new Error(`${what}: it did not happen in ${timeoutMs} ms`);
    await sleep(10);
  }
}
