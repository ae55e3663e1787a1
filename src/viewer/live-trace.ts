/** A trace that goes on: read as it comes, its last requests at hand at any time, in bounded memory. */
import { OpenIos } from '../trace/analysis/open-ios.js';
import { Pairing } from '../trace/analysis/pairing.js';
import type { TraceReader } from '../trace/record.js';
import type { IoTable } from '../trace/traced-io.js';
import { TraceModel } from './model.js';
import { RollingTable } from './rolling-table.js';

/** Requests that are kept: about 100 bytes each. */
export const LIVE_REQUESTS = 200_000;

export class LiveTrace {
  readonly #reader: TraceReader;
  readonly #pairing: Pairing;
  readonly #rolling: RollingTable;

  constructor(reader: TraceReader, keep = LIVE_REQUESTS) {
    const ios = new OpenIos();
    this.#reader = reader;
    this.#rolling = new RollingTable(ios, keep);
    this.#pairing = new Pairing(ios, [this.#rolling]);
  }

  get records(): number {
    return this.#pairing.records;
  }

  /** Resolves when the source ends. `onRecords` is called when some have come. */
  async read(onRecords: () => void, signal: AbortSignal): Promise<void> {
    for await (const batch of this.#reader) {
      if (signal.aborted) return;
      this.#pairing.add(batch);
      onRecords();
    }
  }

  /** As it is now; it does not change any more. */
  model(): TraceModel {
    return new TraceModel(this.table());
  }

  table(): IoTable {
    const { annotations, endNs } = this.#pairing;
    return this.#rolling.snapshot({
      processes: new Map([...this.#reader.processes, ...annotations.processes]), deviceNames: new Map(annotations.deviceNames), causes: [...annotations.causes], endNs,
    });
  }
}
