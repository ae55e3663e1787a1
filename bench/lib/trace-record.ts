/**
 * What recording costs: the CPU time that the NBD server takes for a 4 KiB read of a qcow2 image in memory, 32 of them in flight, with all layers
 * recorded and without. The trace goes to a disk, as traces do: for a file in memory the kernel has to find new pages as it grows, which costs more
 * than all the rest of recording. The target is asked of the median of all rounds: the best run of one and the best of the other may be of different moments,
 * whose difference is larger than that of the two.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { kill, launcher, repository, runOk, start } from '../../test/support/run.js';
import { Series } from './series.js';
import type { TraceFigures, TraceSetup } from './trace-bench.js';

const READS = 40_000;
/** As many rounds as others have, and so many times more: the differences are small. */
const ROUNDS = 5;
const MOST_MORE = 1.05;

interface Server {
  readonly name: string;
  readonly pid: number;
  readonly socket: string;
  readonly stop: () => Promise<void>;
}

async function serve(name: string, image: string, directory: string, trace: readonly string[]): Promise<Server> {
  const socket = join(directory, `${name.replaceAll(' ', '-')}.sock`);
  const child = start(launcher, ['nbd', 'serve', image, '--read-only', '--persistent', '--socket', socket, ...trace]);
  await new Promise<void>((resolve, reject) => {
    child.stdout!.once('data', () => resolve());
    child.once('exit', () => reject(new Error(`${name}: the server did not start`)));
  });
  return { name, pid: child.pid!, socket, stop: () => kill(child, 'SIGTERM') };
}

/** Seconds of all threads, in the kernel too, as the scheduler counts them: it counts ns, where `stat` counts ticks of 10 ms. */
function cpuSeconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, thread) => sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]), 0) / 1e9;
}

async function load({ pid, socket }: Server): Promise<number> {
  const before = cpuSeconds(pid);
  await runOk('fio', ['--name=r', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, '--rw=randread', '--bs=4k', '--iodepth=32', '--size=256m', `--number_ios=${READS}`, '--minimal']);
  return cpuSeconds(pid) - before;
}

export async function benchRecord({ directory, rounds }: TraceSetup): Promise<TraceFigures> {
  const image = join(directory, 'recorded.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', image, '256M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 0 256M', image]);
  const results = join(repository, 'bench', 'results');
  mkdirSync(results, { recursive: true });
  const onDisk = mkdtempSync(join(results, 'trace-'));
  const servers = [await serve('recorded', image, directory, ['--trace', join(onDisk, 'recorded')]), await serve('not recorded', image, directory, [])];
  const series = servers.map(({ name }) => new Series(name));
  const ratios: number[] = [];
  try {
    for (let round = 0; round <= ROUNDS * rounds; round++) {
      const seconds: number[] = [];
      for (const server of servers) seconds.push(await load(server));
      if (round === 0) continue; // it warms up
      for (const [index, one] of series.entries()) one.add(seconds[index]!, READS);
      ratios.push(seconds[0]! / seconds[1]!);
    }
  } finally {
    for (const server of servers) await server.stop();
    rmSync(onDisk, { recursive: true, force: true });
  }
  return {
    rows: [{ what: '4K reads in a second of CPU', series }],
    targets: [{ what: 'CPU of a 4K read, recorded / not recorded', value: ratios.toSorted((a, b) => a - b)[Math.floor(ratios.length / 2)]!, bound: MOST_MORE, unit: 'x', atMost: true }],
  };
}
