/** From a trace's name to what viewers show of it. */
import { basename } from 'node:path';
import { diagnoseTable } from '../trace/analysis/analyse.js';
import type { PairingCounts } from '../trace/analysis/pairing-listener.js';
import type { Finding } from '../trace/finding.js';
import { openTrace } from '../trace/read/open.js';
import type { ReadFindings } from '../trace/record.js';
import { viewOf, type LoadingState, type OverviewFacts, type ShownFinding } from './answers.js';
import { TraceModel } from './model.js';

/** Requests from which on a view takes noticeably long. */
const MANY = 100_000;
const WARM_SHARES = [1 / 16, 1 / 16, 1 / 4, 1];

/** A trace ready to be asked. */
export interface LoadedTrace extends OverviewFacts {
  readonly model: TraceModel;
}

export interface LoadTraceOptions {
  /** How far it has been read, after each batch. */
  readonly onProgress?: (state: Pick<LoadingState, 'done' | 'total' | 'unit'>) => void;
  /** Ends the work with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Reads and pairs a whole trace: about 150 bytes of memory for each request. BlockError: there is no trace of that name. */
export async function loadTrace(name: string, { onProgress, signal }: LoadTraceOptions = {}): Promise<LoadedTrace> {
  const reader = await openTrace(name);
  let records = 0;
  const { table, findings } = await diagnoseTable(reader, {
    ...(signal === undefined ? {} : { signal }),
    onProgress: (progress) => {
      ({ records } = progress);
      const { bytes, total } = reader.progress;
      onProgress?.(total === null ? { done: records, total, unit: 'records' } : { done: bytes, total, unit: 'bytes' });
    },
  });
  const model = new TraceModel(table);
  warm(model);
  return { model, name: basename(name), records, remarks: [...readingRemarks(reader.findings), ...pairingRemarks(table.counts)], findings: findings.map(shownFinding) };
}

/** The first view is what people wait for: the functions that make it are compiled by then. */
function warm(model: TraceModel): void {
  if (model.table.count < MANY) return;
  const { span: { from, to }, bottomDevices: devices } = model;
  const query = { columns: 600, heatColumns: 300, rows: 120, sectors: null, colour: 'op', latency: 'q2c', filter: { devices } } as const;
  // the first runs are slow, so they are short
  for (const share of WARM_SHARES) viewOf(model, { ...query, from, to: from + (to - from) * share });
}

export function shownFinding({ severity, title, sentence, cure, region, device, evidence }: Finding): ShownFinding {
  return { severity, title, text: sentence, cure, region: { from: region.fromNs, to: region.toNs }, devices: [device], evidence: evidence.map(({ id }) => id) };
}

function readingRemarks({ skippedBytes, skips, outOfOrder }: ReadFindings): string[] {
  return [
    ...(skips === 0 ? [] : [`${skippedBytes} bytes in ${skips} places are no records`]),
    ...(outOfOrder === 0 ? [] : [`${outOfOrder} records were out of order`]),
  ];
}

function pairingRemarks({ withoutQueue, withoutEnd }: PairingCounts): string[] {
  return [
    ...(withoutQueue === 0 ? [] : [`${withoutQueue} requests were queued before the trace began, or the trace lost that`]),
    ...(withoutEnd === 0 ? [] : [`${withoutEnd} requests never ended`]),
  ];
}
