/** Disks in memory, raw or in qcow2 images, that answer late, in any order, and fail when a seed says so; time that passes only between steps. */
import { BlockError, BlockNode, createQcow2, makeRequest, openQcow2, Random, type BlockDriver, type BlockRequest } from '../../src/index.js';
import { JobLab, LabDisk, turn } from './job-lab.js';
import { VirtualClock } from './virtual-clock.js';

const KiB = 1024;
export type ModelFormat = 'raw' | 'qcow2';

export interface ModelDisk {
  readonly node: BlockNode;
  /** What the image lies on. */
  readonly storage: LabDisk;
  readonly format: ModelFormat;
}

export interface Faults {
  /** Chance of each request. */
  chance: number;
  errno: 'EIO' | 'ENOSPC';
  /** How many were met. */
  met: number;
}

export class ModelWorld {
  readonly random: Random;
  readonly clock = new VirtualClock();
  readonly lab = new JobLab(this.clock);
  readonly storages = new Map<string, LabDisk>();
  /** Set back before anything is opened again. */
  readonly faults: Readonly<Record<'source' | 'target', Faults>> = {
    source: { chance: 0, errno: 'EIO', met: 0 }, target: { chance: 0, errno: 'EIO', met: 0 },
  };

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  /** One turn, after which some time may pass. */
  async step(): Promise<void> {
    await turn();
    if (this.random.chance(0.1)) await this.clock.advance(1 + this.random.below(40));
  }

  /** Lets time pass until the work is done. */
  async until<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const end = (): void => { over = true; };
    work.then(end, end);
    for (let left = 100_000; !over && left > 0; left--) await this.step();
    if (!over) throw new Error('it did not end');
    return work;
  }

  /** A size whose end is an odd place, where the format allows that. */
  size(format: ModelFormat, most = 1536 * KiB): number {
    const { random } = this;
    return (128 + random.below(most / KiB - 128)) * KiB + 512 * random.below(5) + (format === 'raw' && random.chance(0.2) ? 1 + random.below(511) : 0);
  }

  /** A disk of its own, filled here and there. `below` is its backing file. */
  async disk(name: string, { bytes, format, below = null, discard = 'unmap' }: {
    readonly bytes: number; readonly format: ModelFormat; readonly below?: ModelDisk | null; readonly discard?: 'ignore' | 'unmap';
  }): Promise<ModelDisk> {
    const { random, lab } = this;
    const storage = new LabDisk({ bytes: format === 'raw' ? bytes : 0, turns: random.pick([0, 1, 2, 4]), seed: random.next32(), growable: format !== 'raw' });
    this.storages.set(name, storage);
    if (format === 'raw') return { node: lab.add(name, storage, { discard }), storage, format };
    const file = new BlockNode({ name, driver: storage, pinned: true });
    await createQcow2(file, {
      size: bytes, clusterSize: 2 ** (12 + random.below(5)), ...below === null ? {} : { backingFile: below.node.nodeName, backingFormat: 'qcow2' },
    });
    const driver = await openQcow2(file, { discard, openBacking: async () => below!.node, ...random.chance(0.3) ? { l2CacheSize: 1, refcountCacheSize: 1 } : {} });
    return { node: lab.add(name, driver, { discard }), storage, format };
  }

  /** Writes, and zeroes, at random. */
  async fill({ node }: ModelDisk, times: number): Promise<void> {
    const { random } = this;
    for (; times > 0; times--) {
      const offset = random.below(node.length());
      const bytes = Math.min(node.length() - offset, 1 + random.below(300 * KiB));
      await (random.chance(0.25) ? node.writeZeroes(offset, bytes) : node.write(offset, Buffer.alloc(bytes, 1 + random.below(255))));
    }
  }

  /** Requests to the storage fail as `faults` says. */
  break({ storage, format }: ModelDisk, role: 'source' | 'target'): void {
    const faults = this.faults[role];
    storage.fault = (request) => {
      if (faults.chance === 0 || !mayFail(request, role, format) || !this.random.chance(faults.chance)) return;
      faults.met++;
      throw new BlockError(faults.errno === 'EIO' ? 'IO' : 'NO_SPACE', `the ${request.op} failed`, { errno: faults.errno });
    };
  }

  mend(): void {
    this.faults.source.chance = 0;
    this.faults.target.chance = 0;
  }

  get faultsMet(): number { return this.faults.source.met + this.faults.target.met; }

  /** What the images hold when all is closed: of each the check, and what the uppermost one shows. */
  async reopened(name: string): Promise<Buffer> {
    await this.lab.graph.closeAll();
    const top = await this.#reopen(name);
    const content = await contentOf(top);
    await top.close();
    return content;
  }

  async #reopen(name: string): Promise<BlockNode> {
    const file = new BlockNode({ name, driver: this.storages.get(name)! });
    const driver = await openQcow2(file, { openBacking: (below) => this.#reopen(below) });
    const found = await driver.check({});
    if (found.corruptions !== 0 || found.checkErrors !== 0) throw new Error(`'${name}' is damaged: ${JSON.stringify(found)}`);
    return new BlockNode({ name, driver });
  }
}

/** What an image cannot take up again where it failed is left whole: flushes, and the header. */
function mayFail({ op, offset }: BlockRequest, role: 'source' | 'target', format: ModelFormat): boolean {
  if (op === 'read') return true;
  if (format === 'qcow2') return role === 'target' && op !== 'flush' && offset >= 512;
  return true;
}

/** All of it, past any drained section. */
export async function contentOf({ driver }: { readonly driver: BlockDriver }): Promise<Buffer> {
  const content = Buffer.alloc(driver.length());
  if (content.byteLength > 0) await driver.submit(makeRequest('read', 0, content.byteLength, content));
  return content;
}
