/** What diagnosis tells of a trace. */

export type Severity = 'note' | 'warning' | 'critical';

/** A request that shows it: the row of it in an `IoTable`, when it was queued, and what it shows. */
export interface EvidenceRow {
  readonly id: number;
  readonly timeNs: number;
  readonly what: string;
}

/** Where to look. */
export interface FindingRegion {
  readonly fromNs: number;
  readonly toNs: number;
  readonly fromSector: number;
  readonly toSector: number;
}

export interface Finding {
  /** Stable, for `--fail-on`: `rmw`, `depth-1`, … */
  readonly rule: string;
  readonly severity: Severity;
  readonly device: number;
  /** A few words. */
  readonly title: string;
  /** What was seen, with its numbers. */
  readonly sentence: string;
  /** What most likely helps. */
  readonly cure: string;
  /** The plainest first. */
  readonly evidence: readonly EvidenceRow[];
  readonly region: FindingRegion;
  /** What the verdict rests on, by name: shares from 0 to 1, times in ns. */
  readonly numbers: Readonly<Record<string, number>>;
}
