/** From a name or a stream to a trace that is being read. */
import { stat } from 'node:fs/promises';
import { createReadStream } from 'node:fs';
import type { Clock } from '../../base/clock.js';
import { BlockError, errnoOf, wrapHostError } from '../../base/errors.js';
import type { TraceReader } from '../record.js';
import { ChunkSource, FileSource, PeekedSource, type ByteSource } from './byte-source.js';
import { RecordDecoder, type TimeBase } from './decoder.js';
import { Intake } from './intake.js';
import { FioLogTrace, fioLogVersion, HEAD_BYTES } from './fio-log.js';
import { MergedTrace } from './merged.js';
import { OrderedStream } from './ordered.js';

export interface OpenTraceOptions {
  /** For pipes: when to stop waiting for more. Default: the system's. */
  readonly clock?: Clock;
  /** Ends the trace where reading is. */
  readonly signal?: AbortSignal;
}

/** Of records and of bytes, over all files; what is held in memory follows from them. */
const TOTAL_RECORDS = 131_072;
const MIN_RECORDS = 4096;
const MAX_RECORDS = 16_384;
const HOLD = 4096;
const TOTAL_BUFFER_BYTES = 16 * 1024 * 1024;
const MAX_BUFFER_BYTES = 1024 * 1024;
/** No machine has more; a directory that pretends to is not read to its end. */
const MAX_FILES = 8192;

/**
 * Opens a trace by name, as blkparse takes it: `NAME` of `NAME.blktrace.0`, `.1`, … or one of these files; also one file with all CPUs
 * (`blkparse -d`), a log of fio, `-` (standard input) or a FIFO. Or a stream of chunks of either format. Reading begins when the
 * batches are iterated; that ends with closing everything, and is done once. BlockError: nothing there, or nothing that is a trace.
 */
export async function openTrace(from: string | AsyncIterable<Uint8Array>, options: OpenTraceOptions = {}): Promise<TraceReader> {
  if (typeof from !== 'string') return fromSource('the stream', new ChunkSource('the stream', from), options);
  if (from === '-') return fromSource('standard input', new ChunkSource('standard input', process.stdin), options);
  const files = await traceFiles(from);
  if (files !== null) return fromFiles(from, files, options);
  const stats = await stat(from).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') throw new BlockError('NOT_FOUND', `there is neither a trace '${from}' nor '${from}.blktrace.0'`, { errno: 'ENOENT' });
    throw wrapHostError(error, `cannot open the trace '${from}'`);
  });
  if (stats.isDirectory()) throw new BlockError('INVALID_ARGUMENT', `'${from}' is a directory, expected a trace`);
  return fromSource(from, stats.isFile() ? await FileSource.open(from) : new ChunkSource(`'${from}'`, createReadStream(from)), options);
}

/** The files `NAME.blktrace.N` of a name, or of one of them, in order; null where there is none. */
export async function traceFiles(name: string): Promise<readonly string[] | null> {
  const base = name.replace(/\.blktrace\.\d+$/, '');
  const files: string[] = [];
  while (files.length < MAX_FILES) {
    const path = `${base}.blktrace.${files.length}`;
    if (!await exists(path)) break;
    files.push(path);
  }
  return files.length === 0 ? null : files;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}

async function fromSource(name: string, source: ByteSource, options: OpenTraceOptions): Promise<TraceReader> {
  try {
    const peeked = await PeekedSource.peek(source, HEAD_BYTES);
    const version = fioLogVersion(peeked.head);
    return version === null ? merged(name, [peeked.source], options) : new FioLogTrace(name, peeked.source, version);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function fromFiles(name: string, paths: readonly string[], options: OpenTraceOptions): Promise<TraceReader> {
  const sources: FileSource[] = [];
  try {
    for (const path of paths) sources.push(await FileSource.open(path));
    return merged(name, sources, options);
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}

function merged(name: string, sources: readonly ByteSource[], { clock, signal }: OpenTraceOptions): MergedTrace {
  const base: TimeBase = { high: null };
  const names = new Map<number, string>();
  const findings = { skippedBytes: 0, skips: 0, outOfOrder: 0 };
  const capacity = Math.max(MIN_RECORDS, Math.min(MAX_RECORDS, Math.floor(TOTAL_RECORDS / sources.length)));
  const bufferBytes = Math.min(MAX_BUFFER_BYTES, Math.floor(TOTAL_BUFFER_BYTES / sources.length));
  const streams = sources.map((source) => (
    new OrderedStream(new Intake(source, new RecordDecoder(bufferBytes, base, names, findings), { clock, signal }), { capacity, hold: Math.min(HOLD, Math.floor(capacity / 4)) })));
  const total = sources.reduce<number | null>((sum, { size }) => (sum === null || size === null ? null : sum + size), 0);
  return new MergedTrace({ name, streams, base, findings, processes: names, total, capacity });
}
