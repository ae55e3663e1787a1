/** QMP: recording the I/O of all nodes, those that are there and those that come. */
import { rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { BlockError, wrapHostError } from '../base/errors.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { TraceRecorder, type TraceSummary } from '../trace/recorder.js';
import type { StorageDaemon } from './daemon.js';

export class DaemonTrace {
  readonly #daemon: StorageDaemon;
  #recorder: TraceRecorder | null = null;
  /** The connection to whom the trace is recorded for; null where nobody is named. */
  #watched: Socket | null = null;
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
    if (this.#recorder !== null) await this.#end(this.#recorder);
  }

  async #start({ file, 'ring-size': ringBytes, watcher }: JsonDict): Promise<void> {
    this.#refuseSecond();
    const watched = watcher === undefined ? null : await connectTo(watcher as string);
    try {
      this.#refuseSecond(); // of another monitor, which began meanwhile
      this.#recorder = new TraceRecorder(file as string, {
        process: 'quiesce daemon', ringBytes: ringBytes as number | undefined, onFailure: (error) => this.#daemon.tellTraceFailure(error),
      });
    } catch (error) {
      watched?.destroy();
      throw error;
    }
    this.#daemon.graph.traceTo(this.#recorder);
    if (watched !== null) this.#watch(watched, this.#recorder);
  }

  #refuseSecond(): void {
    if (this.#recorder !== null) throw new BlockError('BUSY', `a trace is being recorded already, into '${this.#recorder.name}'`);
  }

  /** When the watcher goes, in whatever way, the recording ends, and what was recorded for it alone is removed. */
  #watch(socket: Socket, recorder: TraceRecorder): void {
    this.#watched = socket;
    socket.resume();
    socket.once('close', () => {
      if (this.#recorder !== recorder) return;
      void this.#end(recorder).then(({ files }) => this.#remove(files));
    });
  }

  /** What cannot be removed stays, and is told of. */
  #remove(files: readonly string[]): void {
    try {
      for (const file of files) rmSync(file, { force: true });
    } catch (error) {
      this.#daemon.tellTraceFailure(wrapHostError(error, 'Could not remove a trace that nobody watches any more'));
    }
  }

  async #end(recorder: TraceRecorder): Promise<TraceSummary> {
    this.#recorder = null;
    this.#daemon.graph.traceTo(null);
    this.#watched?.destroy();
    this.#watched = null;
    return this.#last = await recorder.stop();
  }

  async #stop(): Promise<JsonDict> {
    if (this.#recorder === null) throw new BlockError('NOT_FOUND', 'no trace is being recorded');
    return told(false, await this.#end(this.#recorder));
  }

  #query(): JsonDict {
    const summary = this.#recorder?.summary ?? this.#last;
    return summary === null ? { recording: false } : told(this.#recorder !== null, summary);
  }
}

function told(recording: boolean, { files, events, dropped, bytes, failure }: TraceSummary): JsonDict {
  return { recording: recording && failure === null, files, events, dropped, bytes, ...failure === null ? {} : { error: failure.message } };
}

/** A Unix socket; its errors from then on are its end. */
function connectTo(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.on('error', (error) => reject(wrapHostError(error, `Could not connect to the watcher '${path}'`)));
    socket.once('connect', () => resolve(socket));
  });
}
