/** Storage daemons that are driven by the same QMP: ours and qemu-storage-daemon; and the guests that load their disks over NBD. */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '../../src/index.js';
import { runOk, start, storageDaemonLauncher } from '../../test/support/run.js';

export interface Peer {
  readonly name: string;
  readonly program: string;
  readonly ours: boolean;
}

export const OURS: Peer = { name: 'quiesce', program: storageDaemonLauncher, ours: true };
export const QEMU: Peer = { name: 'qemu-storage-daemon', program: 'qemu-storage-daemon', ours: false };

export const PEERS: readonly Peer[] = [OURS, QEMU];

export type Blockdev = Readonly<Record<string, unknown>>;

export class Daemon {
  readonly uri: string;
  readonly qmp: QmpClient;
  readonly #pid: number;
  readonly #stop: () => Promise<void>;

  private constructor(qmp: QmpClient, pid: number, uri: string, stop: () => Promise<void>) {
    this.qmp = qmp;
    this.#pid = pid;
    this.uri = uri;
    this.#stop = stop;
  }

  /** With an NBD server at a socket of its own; `blockdevs` are nodes in the order given. */
  static async start(peer: Peer, directory: string, blockdevs: readonly Blockdev[]): Promise<Daemon> {
    const monitor = join(directory, `${peer.name}.qmp`);
    const nbd = join(directory, `${peer.name}.nbd`);
    for (const path of [monitor, nbd]) rmSync(path, { force: true });
    const child = start(peer.program, [
      '--chardev', `socket,path=${monitor},server=on,wait=off,id=mon`, '--monitor', 'chardev=mon', '--nbd-server', `addr.type=unix,addr.path=${nbd}`,
      ...blockdevs.flatMap((options) => ['--blockdev', JSON.stringify(options)]),
    ], { stdio: ['ignore', 'inherit', 'inherit'] });
    const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
    await appears(monitor, peer.program, () => child.exitCode !== null);
    const qmp = await QmpClient.connect(monitor);
    return new Daemon(qmp, child.pid!, `nbd+unix:///disk?socket=${nbd}`, async () => {
      qmp.close();
      child.kill('SIGTERM');
      await Promise.race([gone, sleep(10_000).then(() => { child.kill('SIGKILL'); })]);
      await gone;
    });
  }

  async export(node: string): Promise<void> {
    await this.qmp.execute('block-export-add', { type: 'nbd', id: 'disk', 'node-name': node, name: 'disk', writable: true });
  }

  /** Starts a job; resolves with the seconds until the event, or null where it does not come in time. */
  async timed(command: string, args: Blockdev, event: string, limitMs = 120_000): Promise<number | null> {
    const started = performance.now();
    const ended = this.qmp.waitEvent(event, () => true, { timeoutMs: limitMs }).then((told) => {
      if (typeof told.data['error'] === 'string') throw new Error(told.data['error']);
      return (performance.now() - started) / 1000;
    }, () => null);
    await this.qmp.execute(command, args);
    return ended;
  }

  /** Resident memory, in bytes. */
  rss(): number {
    const line = readFileSync(`/proc/${this.#pid}/status`, 'latin1').split('\n').find((text) => text.startsWith('VmRSS:'))!;
    return Number(line.replaceAll(/\D/g, '')) * 1024;
  }

  stop(): Promise<void> { return this.#stop(); }
}

export interface StoppableServer {
  readonly socket: string;
  /** Stands still, with its connections open. */
  stop(): void;
  goOn(): void;
}

/** qemu-nbd on an image. */
export async function withStoppableServer(image: string, directory: string, work: (server: StoppableServer) => Promise<void>): Promise<void> {
  const socket = join(directory, 'target.nbd');
  const child = start('qemu-nbd', ['-k', socket, '-f', 'qcow2', '-t', image], { stdio: 'inherit' });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    await appears(socket, 'qemu-nbd', () => child.exitCode !== null);
    await work({ socket, stop: () => child.kill('SIGSTOP'), goOn: () => child.kill('SIGCONT') });
  } finally {
    child.kill('SIGKILL');
    await gone;
  }
}

async function appears(socket: string, program: string, ended: () => boolean): Promise<void> {
  for (let wait = 0; statSync(socket, { throwIfNoEntry: false }) === undefined; wait++) {
    if (ended() || wait > 4000) throw new Error(`${program} does not start`);
    await sleep(5);
  }
}

export interface GuestLoad {
  readonly rw: 'randwrite' | 'randread';
  readonly iops: number;
  readonly seconds: number;
  readonly depth?: number;
  readonly bytes: number;
}

export interface GuestReport {
  readonly iops: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** fio's nbd engine at a fixed rate. */
export async function guest(uri: string, { rw, iops, seconds, depth = 1, bytes }: GuestLoad): Promise<GuestReport> {
  const output = await runOk('fio', ['--name=guest', '--ioengine=nbd', `--uri=${uri}`, `--rw=${rw}`, '--bs=4k', `--iodepth=${depth}`, `--size=${bytes}`,
    '--time_based', `--runtime=${seconds}`, `--rate_iops=${iops}`, '--randrepeat=1', '--norandommap', '--output-format=json'], { timeoutMs: (seconds + 60) * 1000 });
  const report = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: [Record<'read' | 'write', { iops: number; clat_ns: { max: number; percentile: Record<string, number> } }>] };
  const side = report.jobs[0][rw === 'randread' ? 'read' : 'write'];
  const { percentile, max } = side.clat_ns;
  return { iops: side.iops, p50Ms: percentile['50.000000']! / 1e6, p99Ms: percentile['99.000000']! / 1e6, maxMs: max / 1e6 };
}
