/** `--trace`, for every command that does I/O: the frame begins it before the command, and ends it whatever becomes of the command. */
import { traceNewNodes, TraceRecorder } from '../src/index.js';
import { UsageError, type ParsedArgs } from './command.mjs';

interface Tracing {
  /** All that was told is in the file when it resolves. */
  end(): Promise<void>;
}

/** Null where nothing is asked for. `command` is how the trace calls the program. Throws where the file cannot be made. */
export function beginTracing({ trace, daemon, qmp }: ParsedArgs, command: string, warn: (message: string) => void): Tracing | null {
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
