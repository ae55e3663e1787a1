/** QMP: recording the I/O of all nodes, those that are there and those that come. */
import { BlockError } from '../base/errors.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { TraceRecorder, type TraceSummary } from '../trace/recorder.js';
import type { StorageDaemon } from './daemon.js';

export class DaemonTrace {
  readonly #daemon: StorageDaemon;
  #recorder: TraceRecorder | null = null;
  /** Of the trace that ended last. */
  #last: TraceSummary | null = null;

  constructor(daemon: StorageDaemon) {
    this.#daemon = daemon;
  }

  commands(): CommandTable {
    return {
      'x-quiesce-trace-start': (args) => this.#start(args),
      'x-quiesce-trace-stop': () => this.#stop(),
      'x-quiesce-query-trace': () => this.#query(),
    };
  }

  /** At the end of the daemon, when its nodes have closed. */
  async close(): Promise<void> {
    if (this.#recorder !== null) await this.#recorder.stop();
  }

  #start({ file, 'ring-size': ringBytes }: JsonDict): undefined {
    if (this.#recorder !== null) throw new BlockError('BUSY', `a trace is being recorded already, into '${this.#recorder.name}'`);
    this.#recorder = new TraceRecorder(file as string, {
      process: 'quiesce daemon', ringBytes: ringBytes as number | undefined, onFailure: (error) => this.#daemon.tellTraceFailure(error),
    });
    this.#daemon.graph.traceTo(this.#recorder);
  }

  async #stop(): Promise<JsonDict> {
    const recorder = this.#recorder;
    if (recorder === null) throw new BlockError('NOT_FOUND', 'no trace is being recorded');
    this.#recorder = null;
    this.#daemon.graph.traceTo(null);
    this.#last = await recorder.stop();
    return told(false, this.#last);
  }

  #query(): JsonDict {
    const summary = this.#recorder?.summary ?? this.#last;
    return summary === null ? { recording: false } : told(this.#recorder !== null, summary);
  }
}

function told(recording: boolean, { files, events, dropped, bytes, failure }: TraceSummary): JsonDict {
  return { recording: recording && failure === null, files, events, dropped, bytes, ...failure === null ? {} : { error: failure.message } };
}
