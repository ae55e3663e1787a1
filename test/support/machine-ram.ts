/** Machines whose RAM holds known bytes, and what a test asks of them over QMP. */
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { machineStatus, QmpClient } from '../../src/index.js';
import { waitFor } from './cli.js';
import { startMachine, type Machine } from './machine.js';
import { randomBytes } from './random-bytes.js';

/** Above what firmware and an idle guest touch. */
const LOAD_ADDRESS = 32 * 1024 * 1024;
const PATTERN_BYTES = 8 * 1024 * 1024;

export interface RamMachine extends Machine {
  readonly qmp: QmpClient;
}

/** `-drive` arguments of a disk; its format and interface are those that all these machines share. */
export function drive(path: string, options = 'format=qcow2,if=virtio'): string[] {
  return ['-drive', `file=${path},${options}`];
}

export function pattern(seed: number): Buffer {
  return randomBytes(PATTERN_BYTES, seed);
}

/** Arguments that put `pattern(seed)` into the machine's RAM, through a file made at `path`. */
export function patternIn(path: string, seed: number): string[] {
  writeFileSync(path, pattern(seed));
  return ['-device', `loader,file=${path},addr=0x${LOAD_ADDRESS.toString(16)},force-raw=on`];
}

/**
 * Starts a machine and ends it, whatever `use` does. QEMU serves one client per QMP socket, so the test has one of its
 * own, and the machine's `qmpPath` is free for the command under test.
 */
export async function withMachine<T>(qmpPath: string, args: readonly string[], use: (machine: RamMachine) => Promise<T>, cwd?: string): Promise<T> {
  const own = `${qmpPath}.test`;
  const machine = await startMachine(qmpPath, ['-qmp', `unix:${own},server=on,wait=off`, ...args], cwd);
  try {
    const qmp = await connectTo(own);
    try {
      return await use({ ...machine, qmp });
    } finally {
      qmp.close();
    }
  } finally {
    await machine.end();
    rmSync(own, { force: true });
  }
}

/** QEMU makes the socket's name a moment before it listens there. */
async function connectTo(path: string): Promise<QmpClient> {
  let qmp: QmpClient | null = null;
  await waitFor(`QEMU listens at ${path}`, async () => {
    qmp = await QmpClient.connect(path).catch(() => null);
    return qmp !== null;
  });
  return qmp!;
}

/** Ends a machine in order: killed, QEMU leaks what savevm has freed but not yet written. */
export async function quit({ qmp, child }: RamMachine): Promise<void> {
  await qmp.execute('quit');
  await waitFor('QEMU ends', () => child.exitCode !== null);
}

/** What lies where the pattern was put. `scratch` names a file that QEMU writes it into. */
export async function ramOf(qmp: QmpClient, scratch: string): Promise<string> {
  await qmp.execute('pmemsave', { val: LOAD_ADDRESS, size: PATTERN_BYTES, filename: scratch });
  const hash = hashOf(readFileSync(scratch));
  rmSync(scratch);
  return hash;
}

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export async function waitForState(qmp: QmpClient, ...states: string[]): Promise<void> {
  await waitFor(`the machine is ${states.join(' or ')}`, async () => states.includes((await machineStatus(qmp)).state));
}

/** A monitor command of people, like `savevm`; throws what it prints. */
export async function monitor(qmp: QmpClient, line: string): Promise<void> {
  const printed = await qmp.execute('human-monitor-command', { 'command-line': line });
  if (printed !== '') throw new Error(`${line}: ${String(printed)}`);
}
