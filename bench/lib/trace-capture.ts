/** A capture to measure with: a workload of several processes on one device, up to 32 requests deep, written by several CPUs. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { Random } from '../../src/index.js';

const HEADER = 48;
const MAGIC = 0x6561_7407;
const DEVICE = 4000 * 2 ** 20;
const DEPTH = 32;
const FLUSH_BYTES = 4 * 1024 * 1024;
const [TIMESTAMP, PROCESS] = [0x0400_0001, 0x0400_0000];
/** Actions of reads and writes: queued, got a request, inserted, issued; and completed. */
const STEPS = [[0x0019_0001, 0x0019_0004, 0x0119_000c, 0x0149_0007], [0x001a_0001, 0x001a_0004, 0x011a_000c, 0x014a_0007]] as const;
const COMPLETE = [0x0189_0008, 0x018a_0008] as const;
const START_NS = 1_000_000_000_000;

class CpuFile {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(FLUSH_BYTES + 256);
  readonly #cpu: number;
  #length = 0;
  #sequence = 0;

  constructor(path: string, cpu: number) {
    this.#fd = openSync(path, 'w');
    this.#cpu = cpu;
  }

  event(time: number, action: number, sector: number, bytes: number, pid: number): void {
    this.#record(++this.#sequence, time, action, sector, bytes, pid, 0);
    if (this.#length >= FLUSH_BYTES) this.#flush();
  }

  notify(action: number, pid: number, payload: Buffer): void {
    this.#record(0, START_NS, action, 0, 0, pid, payload.length);
    this.#length += payload.copy(this.#buffer, this.#length);
  }

  #record(sequence: number, time: number, action: number, sector: number, bytes: number, pid: number, payload: number): void {
    const at = this.#length;
    const out = this.#buffer;
    out.writeUInt32LE(MAGIC, at);
    out.writeUInt32LE(sequence, at + 4);
    out.writeUInt32LE(time % 2 ** 32, at + 8);
    out.writeUInt32LE(Math.floor(time / 2 ** 32), at + 12);
    out.writeUInt32LE(sector % 2 ** 32, at + 16);
    out.writeUInt32LE(Math.floor(sector / 2 ** 32), at + 20);
    out.writeUInt32LE(bytes, at + 24);
    out.writeUInt32LE(action, at + 28);
    out.writeUInt32LE(pid, at + 32);
    out.writeUInt32LE(DEVICE, at + 36);
    out.writeUInt32LE(this.#cpu, at + 40);
    out.writeUInt32LE(payload * 2 ** 16, at + 44);
    this.#length = at + HEADER;
  }

  #flush(): void {
    writeSync(this.#fd, this.#buffer, 0, this.#length);
    this.#length = 0;
  }

  close(): void {
    this.#flush();
    closeSync(this.#fd);
  }
}

/** Writes `NAME.blktrace.0` and so on. The same number of events gives the same files. */
export function writeCapture(name: string, events: number, cpus = 4): void {
  const random = new Random(1);
  const files = Array.from({ length: cpus }, (_, cpu) => new CpuFile(`${name}.blktrace.${cpu}`, cpu));
  const stamp = Buffer.alloc(8);
  stamp.writeUInt32LE(1_600_000_000);
  for (const file of files) {
    file.notify(TIMESTAMP, 0, stamp);
    for (let pid = 0; pid < 4; pid++) file.notify(PROCESS, 1000 + pid, Buffer.from(`worker-${pid}`.padEnd(16, '\0')));
  }
  const inFlight: { readonly sector: number; readonly bytes: number; readonly write: 0 | 1 }[] = [];
  let time = START_NS;
  for (let written = 0, request = 0; written < events;) {
    const depth = 1 + Math.floor(DEPTH * (0.5 + 0.5 * Math.sin(request / 50_000)));
    const file = files[random.below(cpus)]!;
    if (inFlight.length >= depth) {
      const { sector, bytes, write } = inFlight.splice(random.below(Math.min(4, inFlight.length)), 1)[0]!;
      file.event(time += 500 + random.below(20_000), COMPLETE[write], sector, bytes, 0);
      written++;
      continue;
    }
    // no two at once have one sector
    const one = { sector: request++ * 7919 % 2 ** 24 * 128, bytes: random.pick([4096, 4096, 8192, 65_536]), write: random.chance(0.4) ? 1 : 0 } as const;
    const pid = 1000 + random.below(4);
    for (const action of STEPS[one.write]) file.event(time += 200 + random.below(2000), action, one.sector, one.bytes, pid);
    written += STEPS[one.write].length;
    inFlight.push(one);
  }
  for (const file of files) file.close();
}
