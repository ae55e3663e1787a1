/** `--trace` and `--trace-events`, for every command that does I/O: the frame begins them before the command, and ends them whatever becomes of it. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { EventLog, events, matchingEvents, traceNewNodes, TraceRecorder, wrapHostError } from '../src/index.js';
import { UsageError, type ParsedArgs } from './command.mjs';

interface Tracing {
  /** All that was told is in the files when it resolves. */
  end(): Promise<void>;
}

const LOG_BUFFER_CHARACTERS = 64 * 1024;

/** What `--trace-events help` prints; null where nobody asks for it. */
export function listEvents({ traceEvents }: ParsedArgs): string | null {
  return Array.isArray(traceEvents) && traceEvents.includes('help') ? matchingEvents().join('\n') : null;
}

/** `command` is how the trace calls the program. Throws where a file cannot be made. */
export function beginTracing(args: ParsedArgs, command: string, warn: (message: string) => void): Tracing {
  const parts = [beginEvents(args), beginRecording(args, command, warn)];
  return { end: async () => { for (const part of parts) await part?.end(); } };
}

/** A file gets its lines in pieces; standard error at once, since others write there too. */
function beginEvents({ traceEvents, traceLog }: ParsedArgs): Tracing | null {
  const patterns = Array.isArray(traceEvents) ? (traceEvents as string[]).flatMap((text) => text.split(',')).filter((pattern) => pattern !== '') : [];
  if (patterns.length === 0) {
    if (traceLog !== undefined) throw new UsageError('--trace-log goes with --trace-events');
    return null;
  }
  const unknown = (pattern: string): Error => new UsageError(`--trace-events: no event is called '${pattern}' ('help' lists them)`);
  const file = typeof traceLog === 'string' ? openLog(traceLog) : null;
  let lines = '';
  const flush = (): void => {
    if (file !== null) writeSync(file, lines);
    lines = '';
  };
  events.log = new EventLog(patterns, (line, stamp) => {
    if (file === null) return void process.stderr.write(`${stamp}${line}\n`);
    lines += `${stamp}${line}\n`;
    if (lines.length > LOG_BUFFER_CHARACTERS) flush();
  }, unknown);
  process.on('exit', flush);
  return {
    end: async () => {
      events.log = null;
      process.off('exit', flush);
      flush();
      if (file !== null) closeSync(file);
    },
  };
}

function openLog(name: string): number {
  try {
    return openSync(name, 'w');
  } catch (error) {
    throw wrapHostError(error, `Could not make the log '${name}'`);
  }
}

function beginRecording({ trace, daemon, qmp }: ParsedArgs, command: string, warn: (message: string) => void): Tracing | null {
  if (typeof trace !== 'string') return null;
  if (daemon !== undefined || qmp !== undefined) {
    throw new UsageError("--trace: records what this command does itself; a daemon's disks are traced by the daemon: its QMP command x-quiesce-trace-start");
  }
  const recorder = new TraceRecorder(trace, { process: command, onFailure: ({ message }) => warn(message) });
  traceNewNodes(recorder);
  const endNow = (): void => { recorder.stopNow(); };
  process.on('exit', endNow);
  return {
    end: async () => {
      traceNewNodes(null);
      const { dropped, events } = await recorder.stop();
      process.off('exit', endNow);
      if (dropped > 0) warn(`the trace lacks ${dropped} of ${dropped + events} events: they came faster than the file takes them`);
    },
  };
}
