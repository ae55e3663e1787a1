/** Chains of random images beside flat arrays: guests that read and write at random while a job runs, each sure of what it must read. */
import { join } from 'node:path';
import {
  BlockGraph, BlockJobs, createImage, JobTable, makeRequest, openBlockdev, Permission, Random, RequestFlag, type BlockBackend, type BlockNode,
} from '../../src/index.js';

const KiB = 1024;

export interface Chain {
  readonly graph: BlockGraph;
  readonly jobs: BlockJobs;
  /** Statuses and events, as they came. */
  readonly seen: string[];
  /** From the base up. */
  readonly nodes: readonly BlockNode[];
  readonly files: readonly string[];
  /** What the uppermost image must show. */
  readonly disk: Buffer;
}

/** `count` images of random sizes and content, one on the other. */
export async function makeRandomChain(folder: string, random: Random, count: number): Promise<Chain> {
  const files: string[] = [];
  let disk = Buffer.alloc(0);
  for (let index = 0; index < count; index++) {
    const file = join(folder, `${index}.qcow2`);
    const size = (1 + random.below(24)) * 128 * KiB;
    const below = files.at(-1);
    await createImage(file, { format: 'qcow2', size, clusterSize: 2 ** (12 + random.below(6)), ...(below === undefined ? {} : { backingFile: below, backingFormat: 'qcow2' }) });
    const next = Buffer.alloc(size);
    disk.copy(next, 0, 0, Math.min(size, disk.byteLength));
    disk = next;
    files.push(file);
    await fill(file, random, disk);
  }
  const graph = new BlockGraph();
  const nodes: BlockNode[] = [];
  for (const [index, filename] of files.entries()) {
    nodes.push(await openBlockdev(graph, {
      driver: 'qcow2', 'node-name': `n${index}`, file: { driver: 'file', filename }, 'read-only': index < count - 1, backing: index === 0 ? null : `n${index - 1}`,
    }));
  }
  const seen: string[] = [];
  const table = new JobTable(({ id, status }) => seen.push(`${id} ${status}`));
  return { graph, nodes, files, disk, seen, jobs: new BlockJobs(table, { emit: (event, data) => seen.push(`${event} ${JSON.stringify(data)}`) }) };
}

async function fill(filename: string, random: Random, disk: Buffer): Promise<void> {
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename } });
  for (let left = random.below(12); left > 0; left--) {
    const offset = random.below(disk.byteLength);
    const bytes = 1 + random.below(Math.min(400 * KiB, disk.byteLength - offset));
    const zero = random.chance(0.25);
    const data = Buffer.alloc(bytes, zero ? 0 : 1 + random.below(255));
    await (zero ? node.writeZeroes(offset, bytes, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0) : node.write(offset, data));
    data.copy(disk, offset);
  }
  await graph.closeAll();
}

/** Guests that share a disk: each has stripes of its own, so that it knows what they hold. */
export class StripedGuests {
  readonly #door: BlockBackend;
  readonly #disk: Buffer;
  readonly #running: Promise<void>[];
  #stopped = false;
  operations = 0;

  constructor(door: BlockBackend, disk: Buffer, seed: number, guests = 4) {
    this.#door = door;
    this.#disk = disk;
    const stripe = 96 * KiB + 512;
    this.#running = Array.from({ length: guests }, (_, index) => this.#run(new Random(seed * 31 + index), index, guests, stripe));
  }

  static async on({ graph, nodes, disk }: Chain, seed: number): Promise<StripedGuests> {
    const door = await graph.attach(nodes.at(-1)!, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
    return new StripedGuests(door, disk, seed);
  }

  get door(): BlockBackend { return this.#door; }

  /** Rejects where one read what it had not written. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  async #run(random: Random, index: number, guests: number, stripe: number): Promise<void> {
    const mine = Math.floor((this.#disk.byteLength - 1 - index * stripe) / (guests * stripe)) + 1;
    if (mine <= 0) return;
    while (!this.#stopped) {
      const start = (random.below(mine) * guests + index) * stripe;
      const end = Math.min(start + stripe, this.#disk.byteLength);
      const unit = random.chance(0.5) ? 1 : 512;
      const offset = start + Math.floor(random.below(end - start) / unit) * unit;
      await this.#one(random, offset, 1 + random.below(end - offset));
      this.operations++;
      for (let turns = random.below(3); turns >= 0; turns--) await new Promise<void>((resolve) => { setImmediate(resolve); });
    }
  }

  async #one(random: Random, offset: number, bytes: number): Promise<void> {
    const kind = random.below(10);
    const mine = this.#disk.subarray(offset, offset + bytes);
    if (kind < 4) {
      const data = Buffer.alloc(bytes, 1 + random.below(255));
      await this.#door.submit(makeRequest('write', offset, bytes, data));
      mine.set(data);
    } else if (kind < 6) {
      await this.#door.submit(makeRequest('write-zeroes', offset, bytes, null, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0));
      mine.fill(0);
    } else if (kind === 6) {
      await this.#door.submit(makeRequest('flush', 0, 0, null));
    } else {
      const read = Buffer.alloc(bytes);
      await this.#door.submit(makeRequest('read', offset, bytes, read));
      const wrong = read.findIndex((byte, at) => byte !== mine[at]);
      if (wrong >= 0) throw new Error(`byte ${offset + wrong} is ${read[wrong]}, not ${mine[wrong]}`);
    }
  }
}

/** The first byte in which the disk behind the door differs from what it must be; null where there is none. */
export async function firstDifference(door: BlockBackend, disk: Buffer): Promise<string | null> {
  const read = Buffer.alloc(disk.byteLength);
  await door.submit(makeRequest('read', 0, read.byteLength, read));
  const at = read.equals(disk) ? -1 : read.findIndex((byte, index) => byte !== disk[index]);
  return at < 0 ? null : `byte ${at} is ${read[at]}, not ${disk[at]}`;
}
