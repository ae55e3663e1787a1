import type { RecordBatch } from '../record.js';

/**
 * Hears of requests while they are paired. `slot` is valid during the call; the columns of `OpenIos` tell the rest.
 * `sector` and `bytes` are the record's own, for one request may go to the device in several pieces, or together with others.
 */
export interface PairingListener {
  /** A request was queued, or is seen for the first time otherwise. */
  requestOpened?(slot: number, time: number): void;
  /** It joined another that waits for the device. */
  requestMerged?(slot: number, time: number): void;
  /** It went to the device. */
  requestIssued?(slot: number, time: number, sector: number, bytes: number): void;
  /** What was issued came back undone. */
  requestRequeued?(slot: number, time: number): void;
  /** It, or a part of it, is done. `wasIssued`: one for each issue that was not requeued; else no issue of it was recorded. */
  requestCompleted?(slot: number, time: number, sector: number, bytes: number, wasIssued: boolean): void;
  /** Nothing more comes: all columns are final. Those that were merged into another follow it. */
  requestClosed?(slot: number): void;
  /** A record of another kind: plug, unplug, split, a message. */
  otherRecord?(batch: RecordBatch, index: number): void;
}

/** What did not fit: counted, and shown as rows of their own where they are requests. */
export interface PairingCounts {
  /** Completions, issues or others of requests that were queued before the trace began, or that the trace lost. */
  withoutQueue: number;
  /** Requests that never ended. */
  withoutEnd: number;
  /** Ended with an error before they reached the device: a probe, mostly. */
  refused: number;
  failed: number;
  requeued: number;
  splits: number;
  merges: number;
  /** Ends of flush sequences that belong to no flush, and requests that carry commands and no blocks. */
  passedOver: number;
}
