/** blkparse's work: a trace as its text, byte for byte as blkparse 1.2.0 prints it, its summary and its merged dump. */
import { stat } from 'node:fs/promises';
import { createReadStream } from 'node:fs';
import { posix } from 'node:path';
import { BlockError } from '../../base/errors.js';
import type { ReadFindings, TraceReader } from '../record.js';
import { ChunkSource, FileSource, PeekedSource, type ByteSource } from '../read/byte-source.js';
import { RecordDecoder } from '../read/decoder.js';
import { FioLogTrace, fioLogVersion, HEAD_BYTES } from '../read/fio-log.js';
import { Intake } from '../read/intake.js';
import { DeviceState } from './devices.js';
import { showFiles, type FeedSource } from './from-files.js';
import { showStream } from './from-stream.js';
import type { BlkparseOptions } from './options.js';
import { Session, type Write } from './session.js';

export interface BlkparseRequest {
  /**
   * Names as blkparse takes them: NAME of `NAME.blktrace.0`, …, or one of these files; a merged dump or fio's log by its own name; or `-`
   * or a FIFO, alone.
   */
  readonly inputs: readonly string[];
  /** Where names without a directory are. */
  readonly directory?: string | undefined;
  readonly options: BlkparseOptions;
  /** Takes the text; null for none. */
  readonly write: Write | null;
  /** Takes the merged dump; null for none. */
  readonly writeDump: Write | null;
  /** Ends the trace where reading is: the summary is of what came before. */
  readonly signal?: AbortSignal;
  /** Called before any text with the files that are read, by blkparse's names for them; none for a stream. */
  readonly opened?: (files: readonly string[]) => Promise<void>;
}

export interface BlkparseResult {
  readonly findings: ReadFindings;
  /** Records that are of another CPU than their file, and not shown. */
  readonly foreign: number;
  /** Records of actions that are not known: counted as events, and not shown. */
  readonly unknown: number;
  /** Records of driver data, which only a dump has. */
  readonly driverData: number;
}

const BUFFER_BYTES = 16 * 1024 * 1024;
const MAX_BUFFER_BYTES = 1024 * 1024;
const MAX_FILES = 8192;

interface OpenInput {
  readonly device: DeviceState;
  readonly cpu: number | null;
  readonly source: ByteSource;
}

/** BlockError: nothing there, nothing that is a trace, or what the options ask for cannot be had. */
export async function blkparse(request: BlkparseRequest): Promise<BlkparseResult> {
  const session = new Session(request.options, request.write, request.writeDump);
  const findings: ReadFindings = { skippedBytes: 0, skips: 0, outOfOrder: 0 };
  const opened: OpenInput[] = [];
  const files: string[] = [];
  let foreign = 0;
  try {
    const stream = await openStream(request.inputs);
    const log = await fioLog(request.inputs);
    const bufferBytes = (): number => Math.min(MAX_BUFFER_BYTES, Math.floor(BUFFER_BYTES / Math.max(1, opened.length)));
    const intakeOf = (source: ByteSource): Intake => new Intake(source, new RecordDecoder(bufferBytes(), session.base, new Map(), findings), { signal: request.signal });
    if (log !== null) await showLog(session, log, request.inputs[0]!);
    else if (stream !== null) {
      const intake = intakeOf(stream);
      opened.push({ source: stream, device: new DeviceState(0, null), cpu: null });
      await showStream(session, intake);
      checkFound(request.inputs[0]!, [intake]);
    } else {
      await openFiles(request, session, opened, files);
      await request.opened?.(files);
      const sources = opened.map(({ device, cpu, source }): FeedSource => ({ device, cpu, intake: intakeOf(source) }));
      foreign = await showFiles(session, sources);
      checkFound(request.inputs.join(' '), sources.map(({ intake }) => intake));
    }
  } finally {
    await Promise.all(opened.map(({ source }) => source.close()));
  }
  session.summary();
  await session.flush();
  return { findings, foreign, unknown: session.events.unknown, driverData: session.events.driverData };
}

function checkFound(name: string, intakes: readonly Intake[]): void {
  const bytes = intakes.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  if (bytes > 0 && !intakes.some(({ decoder }) => decoder.found)) throw new BlockError('INVALID_ARGUMENT', `'${name}' is no trace: there is not one blktrace record in its ${bytes} bytes`);
}

async function openStream(inputs: readonly string[]): Promise<ByteSource | null> {
  const [name] = inputs;
  const isStream = await Promise.all(inputs.map(async (input) => input === '-' || (await stat(input).catch(() => null))?.isFIFO() === true));
  if (!isStream.includes(true)) return null;
  if (inputs.length > 1) throw new BlockError('INVALID_ARGUMENT', `a stream ('${inputs[isStream.indexOf(true)]}') is read alone`);
  return new ChunkSource(`'${name}'`, name === '-' ? process.stdin : createReadStream(name!));
}

/** Opens the files of all names, in the order in which blkparse does. */
async function openFiles(request: BlkparseRequest, session: Session, opened: OpenInput[], files: string[]): Promise<void> {
  let { directory } = request;
  for (const input of request.inputs) {
    const at = input.indexOf('.blktrace.');
    const name = at < 0 ? input : input.slice(0, at);
    const folder = posix.dirname(name);
    // a directory that one name has is that of the names behind it, too
    if (folder !== '.') directory = folder;
    const base = folder === '.' ? name : posix.basename(name);
    const place = (file: string): string => (directory === undefined ? file : `${directory}/${file}`);
    const device = new DeviceState(0, base);
    session.devices.push(device);
    let cpu = 0;
    for (; cpu < MAX_FILES; cpu++) {
      const path = place(`${base}.blktrace.${cpu}`);
      const stats = await stat(path).catch(() => null);
      if (stats === null) break;
      if (stats.size === 0) continue;
      opened.push({ device, cpu, source: await FileSource.open(path) });
      files.push(path);
    }
    if (cpu > 0) continue;
    const whole = place(base === input ? base : posix.basename(input));
    const stats = await stat(whole).catch(() => null);
    if (stats?.isFile() !== true) throw new BlockError('NOT_FOUND', `there is neither a trace '${whole}' nor '${place(base)}.blktrace.0'`);
    opened.push({ device, cpu: null, source: await FileSource.open(whole) });
    files.push(whole);
  }
}

/** fio's log as the only input. */
async function fioLog(inputs: readonly string[]): Promise<TraceReader | null> {
  const [name] = inputs;
  if (inputs.length !== 1 || name === undefined || name === '-' || (await stat(name).catch(() => null))?.isFile() !== true) return null;
  const { head, source } = await PeekedSource.peek(await FileSource.open(name), HEAD_BYTES);
  const version = fioLogVersion(head);
  if (version !== null) return new FioLogTrace(name, source, version);
  await source.close();
  return null;
}

async function showLog(session: Session, log: TraceReader, name: string): Promise<void> {
  const device = new DeviceState(0, posix.basename(name));
  session.devices.push(device);
  const cpu = device.cpu(0);
  session.names.add(0, Buffer.from('fio'));
  const { mask, from, to } = session.options;
  for await (const batch of log) {
    for (let index = 0; index < batch.count; index++) {
      const time = batch.time[index]!;
      if (time > to) return;
      cpu.records++;
      device.lastTime = time;
      if ((batch.category[index]! & mask) !== 0 && time >= from) session.event(batch, index, time, device, cpu);
      if (session.ripe) await session.flush();
    }
  }
}
