import type { Finding } from '../finding.js';
import type { RecordBatch, TraceReader } from '../record.js';
import { Annotations } from './annotations.js';
import { BttNumbers } from './btt.js';
import { findingsOf, makeRules } from './diagnose/rules.js';
import { IoTableBuilder, type BuiltIoTable } from './io-table.js';
import { OpenIos } from './open-ios.js';
import { Pairing } from './pairing.js';
import type { PairingCounts, PairingListener } from './pairing-listener.js';
import { Statistics } from './statistics.js';

export interface AnalysisProgress {
  readonly records: number;
  readonly ios: number;
  /** ns, how far into the trace. */
  readonly timeNs: number;
}

export interface AnalysisOptions {
  /** Called after each batch of records. */
  readonly onProgress?: (progress: AnalysisProgress) => void;
  /** Ends the work with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** All that one pass over a trace tells. */
export interface TraceAnalysis {
  readonly records: number;
  readonly ios: number;
  /** ns, of the last record. */
  readonly endNs: number;
  readonly counts: PairingCounts;
  readonly statistics: Statistics;
  readonly btt: BttNumbers;
  readonly findings: readonly Finding[];
  readonly processes: ReadonlyMap<number, string>;
  readonly deviceNames: ReadonlyMap<number, string>;
  /** Records that a recorder of ours had no room for. */
  readonly dropped: number;
}

/** One listener for all that counts: called by their names they are compiled into one. */
class Everything implements PairingListener {
  constructor(private readonly statistics: Statistics, private readonly btt: BttNumbers, private readonly rules: ReturnType<typeof makeRules>) {}

  requestOpened(slot: number, time: number): void {
    this.statistics.requestOpened(slot, time);
    this.btt.requestOpened(slot, time);
    this.rules.requestOpened(slot, time);
  }

  requestMerged(slot: number): void {
    this.btt.requestMerged(slot);
  }

  requestIssued(slot: number, time: number, sector: number, bytes: number): void {
    this.statistics.requestIssued(slot, time);
    this.btt.requestIssued(slot, time, sector, bytes);
    this.rules.requestIssued(slot, time, sector, bytes);
  }

  requestRequeued(slot: number, time: number): void {
    this.statistics.requestRequeued(slot, time);
    this.btt.requestRequeued(slot, time);
    this.rules.requestRequeued(slot, time);
  }

  requestCompleted(slot: number, time: number, sector: number, bytes: number, wasIssued: boolean): void {
    this.statistics.requestCompleted(slot, time, sector, bytes, wasIssued);
    this.btt.requestCompleted(slot, time, sector, bytes, wasIssued);
    this.rules.requestCompleted(slot, time, sector, bytes, wasIssued);
  }

  requestClosed(slot: number): void {
    this.statistics.requestClosed(slot);
    this.btt.requestClosed(slot);
    this.rules.requestClosed(slot);
  }

  otherRecord(batch: RecordBatch, at: number): void {
    this.btt.otherRecord(batch, at);
  }
}

/** Analyses a trace in memory that does not grow with it. */
export async function analyseTrace(reader: TraceReader, options: AnalysisOptions = {}): Promise<TraceAnalysis> {
  const ios = new OpenIos();
  const annotations = new Annotations();
  const rules = makeRules({ ios, annotations });
  const statistics = new Statistics(ios);
  const btt = new BttNumbers(ios);
  const pairing = new Pairing(ios, [new Everything(statistics, btt, rules)], annotations);
  await readAll(reader, pairing, options);
  const { counts, endNs, records } = pairing;
  return {
    counts, endNs, records, ios: ios.opens, statistics, btt, findings: findingsOf(rules), processes: new Map([...reader.processes, ...annotations.processes]),
    deviceNames: annotations.deviceNames, dropped: annotations.dropped,
  };
}

/** Pairs a whole trace into a table: about 80 bytes per request. */
export async function buildIoTable(reader: TraceReader, options: AnalysisOptions = {}): Promise<BuiltIoTable> {
  const ios = new OpenIos();
  const builder = new IoTableBuilder(ios);
  const pairing = new Pairing(ios, [builder]);
  await readAll(reader, pairing, options);
  return builder.finish(pairing, reader.processes);
}

/** For viewers: the table of all requests, and the findings, whose rows of evidence are rows of it. */
export async function diagnoseTable(reader: TraceReader, options: AnalysisOptions = {}): Promise<{ readonly table: BuiltIoTable; readonly findings: readonly Finding[] }> {
  const ios = new OpenIos();
  const annotations = new Annotations();
  const rules = makeRules({ ios, annotations });
  const builder = new IoTableBuilder(ios);
  const pairing = new Pairing(ios, [builder, rules], annotations);
  await readAll(reader, pairing, options);
  return { table: builder.finish(pairing, reader.processes), findings: findingsOf(rules) };
}

async function readAll(reader: TraceReader, pairing: Pairing, { onProgress, signal }: AnalysisOptions): Promise<void> {
  for await (const batch of reader) {
    signal?.throwIfAborted();
    pairing.add(batch);
    onProgress?.({ records: pairing.records, ios: pairing.ios.opens, timeNs: pairing.endNs });
  }
  pairing.finish();
}
