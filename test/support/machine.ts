/** A real QEMU machine for interop tests: started, reached over QMP, and always ended. */
import { rmSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { isThere } from './listening.js';
import { kill, start } from './run.js';

export interface Machine {
  readonly child: ChildProcess;
  readonly qmpPath: string;
  end(): Promise<void>;
}

const BASE = ['-machine', 'pc,accel=tcg', '-m', '64', '-nodefaults', '-display', 'none'];

/** Starts QEMU (64 MiB, TCG) and waits for its QMP socket. */
export async function startMachine(qmpPath: string, args: readonly string[], cwd?: string): Promise<Machine> {
  const qmp = ['-qmp', `unix:${qmpPath},server=on,wait=off`];
  const child = start('qemu-system-x86_64', [...BASE, ...qmp, ...args], cwd === undefined ? {} : { cwd });
  let stderr = '';
  child.stderr!.on('data', (data: Buffer) => { stderr += data.toString(); });
  child.stdout!.resume();
  for (let wait = 0; !isThere(qmpPath); wait++) {
    if (child.exitCode !== null || wait > 500) throw new Error(`qemu-system-x86_64 did not start: ${stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { child, qmpPath, end: async () => {
    await kill(child);
    rmSync(qmpPath, { force: true });
  } };
}
