/** What guests wait for their writes, as a histogram of QEMU's tells. */
import { percentileOf } from '../../block/latency.js';
import { QmpError, type QmpClient } from '../../qmp/client.js';
import { isObject, type JsonObject } from '../../qmp/wire.js';

const NS_PER_MS = 1_000_000;
const BOUNDARIES = Array.from({ length: 40 }, (_, bin) => Math.round(NS_PER_MS / 64 * 2 ** (bin / 2)));
/** Looks that one answer is made of: what is older is left out. */
const LOOKS = 20;

export class QemuLatency {
  readonly #qmp: QmpClient;
  readonly #device: string;
  readonly #ours: boolean;
  readonly #seen: number[][] = [];
  #p99: number | null = null;

  private constructor(qmp: QmpClient, device: string, ours: boolean) {
    this.#qmp = qmp;
    this.#device = device;
    this.#ours = ours;
  }

  /** Lets QEMU count, unless it does so already: then the user's own bins must do. */
  static async start(qmp: QmpClient, device: string, stats: JsonObject | null): Promise<QemuLatency> {
    const theirs = stats?.['wr_latency_histogram'] !== undefined;
    const set = theirs ? false : await qmp.execute('block-latency-histogram-set', { id: device, 'boundaries-write': BOUNDARIES }).then(() => true, (error: unknown) => {
      if (error instanceof QmpError) return false;
      throw error;
    });
    return new QemuLatency(qmp, device, set);
  }

  /** Milliseconds; null where nothing was written lately, or QEMU does not count. */
  get p99(): number | null { return this.#p99; }

  /** `query-blockstats` of the device, now. */
  look(stats: JsonObject): void {
    const histogram = stats['wr_latency_histogram'];
    if (!isObject(histogram) || !Array.isArray(histogram['bins']) || !Array.isArray(histogram['boundaries'])) return;
    const bins = histogram['bins'].map(Number);
    const ends = [...histogram['boundaries'].map(Number), Infinity];
    this.#seen.push(bins);
    const before = this.#seen.length > LOOKS ? this.#seen.shift()! : this.#seen[0]!;
    const found = percentileOf(bins.map((count, bin) => ({ count: count - (before[bin] ?? 0), ms: ends[bin]! / NS_PER_MS })), 0.99);
    this.#p99 = found === Infinity ? ends.at(-2)! / NS_PER_MS : found;
  }

  async stop(): Promise<void> {
    if (this.#ours) await this.#qmp.execute('block-latency-histogram-set', { id: this.#device });
  }
}
