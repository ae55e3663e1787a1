/** A mirror between two disks in memory, with a guest's door. */
import { startMirror, type BlockBackend, type BlockNode, type Mirror, type MirrorOptions } from '../../src/index.js';
import type { Clock } from '../../src/base/clock.js';
import { JobLab, LabDisk, turn } from './job-lab.js';

export const KiB = 1024;

export interface MirrorLabOptions {
  readonly bytes?: number;
  readonly targetBytes?: number;
  readonly turns?: number;
  readonly seed?: number;
  readonly clock?: Clock;
  readonly discard?: 'ignore' | 'unmap';
  /** What the source holds at first; default: all 0x55. */
  readonly fill?: number | null;
}

export class MirrorLab extends JobLab {
  readonly disks: { readonly source: LabDisk; readonly target: LabDisk };
  readonly source: BlockNode;
  readonly target: BlockNode;
  door!: BlockBackend;
  mirror!: Mirror;
  /** Whether the disks were equal when the job's work was done, if it is. */
  equal: boolean | null = null;

  private constructor({ bytes = 256 * KiB, targetBytes = bytes, turns = 2, seed = 1, clock, discard }: MirrorLabOptions) {
    super(clock);
    this.disks = { source: new LabDisk({ bytes, seed, turns }), target: new LabDisk({ bytes: targetBytes, seed: seed + 1, turns }) };
    this.source = this.add('source', this.disks.source);
    this.target = this.add('target', this.disks.target, discard === undefined ? {} : { discard });
    this.onStatus = (_id, status) => { if (status === 'waiting') this.equal = this.disks.source.content().equals(this.disks.target.content()); };
  }

  static async create(options: MirrorLabOptions = {}): Promise<MirrorLab> {
    const lab = new MirrorLab(options);
    const { fill = 0x55 } = options;
    if (fill !== null && lab.source.length() > 0) await lab.source.write(0, Buffer.alloc(lab.source.length(), fill));
    if (lab.target.length() > 0) await lab.target.write(0, Buffer.alloc(lab.target.length(), 0x77));
    for (const disk of Object.values(lab.disks)) {
      disk.log.length = 0;
      disk.mostBytesInFlight = 0;
      disk.mostInFlight = 0;
    }
    lab.door = await lab.guest(lab.source);
    return lab;
  }

  async start(options: Partial<MirrorOptions> = {}): Promise<Mirror> {
    this.mirror = await startMirror(this.graph, this.jobs, { jobId: 'j', source: this.source, target: this.target, sync: 'full', ...options });
    return this.mirror;
  }

  get job() { return this.mirror.blockJob.job; }

  async ready(): Promise<void> {
    while (!this.job.isReady) {
      if (this.job.ran) throw new Error(`the job ended: ${this.job.error}; ${this.seen.join(', ')}`);
      await turn();
    }
  }

  /** Until the job has ended. */
  async complete(): Promise<void> {
    await this.ready();
    this.job.complete();
    await this.job.ended;
  }

  async turns(count: number): Promise<void> {
    for (let left = count; left > 0; left--) await turn();
  }
}

/** A gate that requests wait at. */
export function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => { open = resolve; });
  return { opened, open };
}
