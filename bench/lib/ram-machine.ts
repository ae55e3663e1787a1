/** QEMU machines with RAM that does not compress. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { randomFillSync } from 'node:crypto';
import { join } from 'node:path';
import { QmpClient } from '../../src/index.js';
import { startMachine, type Machine } from '../../test/support/machine.js';

const MiB = 1024 * 1024;
const FILL_AT = 64 * MiB;
const UNLIMITED = 2 ** 50;

let machines = 0;

async function start(directory: string, ramMiB: number, args: readonly string[]): Promise<{ machine: Machine; qmp: QmpClient }> {
  const machine = await startMachine(join(directory, `qmp-${++machines}`), ['-m', String(ramMiB), '-S', ...args]);
  return { machine, qmp: await QmpClient.connect(machine.qmpPath, { timeoutMs: 60_000 }) };
}

/** RAM of a machine whose guest filled `fillMiB`. */
function ramFor(fillMiB: number): number {
  return fillMiB + 128;
}

/** A migration stream of a machine with `fillMiB` of random RAM: the state that everyone saves. */
export async function makeStream(directory: string, stream: string, fillMiB: number): Promise<void> {
  const content = `${stream}.ram`;
  writeRandom(content, fillMiB);
  const { machine, qmp } = await start(directory, ramFor(fillMiB), ['-device', `loader,file=${content},addr=0x${FILL_AT.toString(16)},force-raw=on`]);
  try {
    rmSync(content);
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': UNLIMITED });
    await qmp.execute('migrate', { uri: `exec:cat > ${stream}` });
    await untilMigrated(qmp);
  } finally {
    qmp.close();
    await machine.end();
  }
}

function writeRandom(path: string, mebibytes: number): void {
  const fd = openSync(path, 'w');
  const chunk = Buffer.alloc(MiB);
  for (let index = 0; index < mebibytes; index++) writeSync(fd, randomFillSync(chunk));
  closeSync(fd);
}

async function untilMigrated(qmp: QmpClient): Promise<void> {
  for (;;) {
    const { status = 'none', 'error-desc': why = '' } = await qmp.execute('query-migrate') as { status?: string; 'error-desc'?: string };
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') throw new Error(`the migration ended as '${status}' ${why}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A stopped machine that holds the streamed RAM and, if given one, a disk. */
export class RamMachine {
  readonly #machine: Machine;
  readonly #qmp: QmpClient;

  private constructor(machine: Machine, qmp: QmpClient) {
    this.#machine = machine;
    this.#qmp = qmp;
  }

  static async start(directory: string, stream: string, fillMiB: number, disk: string, cache: string): Promise<RamMachine> {
    const drive = `file=${disk},format=qcow2,if=none,id=disk,cache=${cache}`;
    const { machine, qmp } = await start(directory, ramFor(fillMiB), ['-incoming', 'defer', '-drive', drive]);
    const started = new RamMachine(machine, qmp);
    try {
      await qmp.execute('migrate-incoming', { uri: `exec:cat ${stream}` });
      while ((await qmp.execute('query-status') as { status: string }).status === 'inmigrate') await new Promise((resolve) => setTimeout(resolve, 20));
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': UNLIMITED });
      return started;
    } catch (error) {
      await started.end();
      throw error;
    }
  }

  /** Seconds that a command of the human monitor takes. */
  async timed(command: string): Promise<number> {
    const started = performance.now();
    const output = await this.#qmp.execute('human-monitor-command', { 'command-line': command });
    if (output !== '') throw new Error(`QEMU refused '${command}': ${String(output)}`);
    return (performance.now() - started) / 1000;
  }

  /** Begins to send its RAM to a unix socket. */
  async migrateTo(socket: string): Promise<void> {
    await this.#qmp.execute('migrate', { uri: `unix:${socket}` });
  }

  /** Has its disk back after a migration: QEMU wants the machine to have run. */
  async settle(): Promise<void> {
    await untilMigrated(this.#qmp);
    await this.#qmp.execute('cont');
    await this.#qmp.execute('stop');
  }

  async end(): Promise<void> {
    this.#qmp.close();
    await this.#machine.end();
  }
}
