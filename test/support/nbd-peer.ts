/** A qemu-nbd of its own for a test. */
import { existsSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { kill, start } from './run.js';

/** Serves until the returned function ends it; `args` go before nothing but the socket. */
export async function startQemuNbd(socketPath: string, args: readonly string[]): Promise<() => Promise<void>> {
  return startServer('qemu-nbd', ['-t', '-k', socketPath, ...args], socketPath);
}

async function startServer(program: string, args: readonly string[], socketPath: string): Promise<() => Promise<void>> {
  const child: ChildProcess = start(program, args);
  let stderr = '';
  child.stderr!.on('data', (data: Buffer) => { stderr += data.toString(); });
  child.stdout!.resume();
  for (let wait = 0; !existsSync(socketPath); wait++) {
    if (child.exitCode !== null || wait > 500) throw new Error(`${program} did not start: ${stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  // the file appears a moment before its owner listens
  await new Promise((resolve) => setTimeout(resolve, 50));
  return () => kill(child);
}
