/** A trace that goes on: read as it comes, its last requests at hand at any time, in bounded memory. */
import { Annotations } from '../trace/analysis/annotations.js';
import { findingsOf, makeRules } from '../trace/analysis/diagnose/rules.js';
import type { Rule } from '../trace/analysis/diagnose/rule.js';
import { OpenIos } from '../trace/analysis/open-ios.js';
import { Pairing } from '../trace/analysis/pairing.js';
import type { TraceReader } from '../trace/record.js';
import type { IoTable } from '../trace/traced-io.js';
import type { ShownFinding } from './answers.js';
import { shownFinding } from './load.js';
import { RollingTable } from './rolling-table.js';

/** Requests that are kept: about 100 bytes each. */
export const LIVE_REQUESTS = 200_000;

export class LiveTrace {
  readonly #reader: TraceReader;
  readonly #pairing: Pairing;
  readonly #rolling: RollingTable;
  readonly #rules: Rule;

  constructor(reader: TraceReader, keep = LIVE_REQUESTS) {
    const ios = new OpenIos();
    this.#reader = reader;
    const annotations = new Annotations();
    this.#rolling = new RollingTable(ios, keep);
    this.#rules = makeRules({ ios, annotations });
    this.#pairing = new Pairing(ios, [this.#rolling, this.#rules], annotations);
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

  /** As it is now; it does not change any more. Findings are of all that was read, their evidence is what is kept of it. */
  now(): { readonly table: IoTable; readonly findings: readonly ShownFinding[] } {
    const { annotations, endNs } = this.#pairing;
    const { table, rowOf } = this.#rolling.snapshot({
      processes: new Map([...this.#reader.processes, ...annotations.processes]), deviceNames: new Map(annotations.deviceNames), causes: [...annotations.causes], endNs,
    });
    const findings = findingsOf(this.#rules).map(shownFinding).map((finding) => Object.assign(finding, { evidence: finding.evidence.map(rowOf).filter((row) => row >= 0) }));
    return { table, findings };
  }
}
