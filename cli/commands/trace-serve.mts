import { loadLiveTrace, loadTrace, TraceServer, type LoadedTrace, type TraceServerOptions } from '../../src/index.js';
import { defineCommand } from '../command.mjs';
import { kindOfSource, openLive } from '../live-trace.mjs';
import { tracePage } from '../trace-page.mjs';

const DEFAULT_HOST = '127.0.0.1';

export const command = defineCommand({
  description: 'Serves a page that shows a trace: what was found wrong with it, where and when each I/O went, throughput, latencies, queue depth, and for each ' +
    'I/O where its time went and what it caused in the layers below. Prints the address of the page, which holds a token that only you know, and ends with Ctrl-C. ' +
    'A stream is shown as it comes. So are the disks of a daemon, by the path of its QMP socket: it records until this ends.',
  positionals: { file: { help: "the trace: NAME of the files NAME.blktrace.0, …, one of these, a merged dump, a log of fio, '-' for standard input, or a daemon's QMP socket" } },
  options: {
    follow: { type: 'boolean', help: 'the trace is being written: show what comes' },
    port: { type: 'number', alias: 'p', max: 65_535, default: 0, help: 'listen on this TCP port; 0 takes a free one' },
    bind: { type: 'string', alias: 'b', value: 'ADDRESS', default: DEFAULT_HOST, help: 'TCP address; by default this machine only. Whoever can listen on the way to another sees the token' },
  },
  examples: [
    { line: 'quiesce trace serve mirror', does: 'the files mirror.blktrace.0, mirror.blktrace.1, …' },
    { line: 'quiesce trace serve /run/quiesce/qmp.sock', does: 'what the disks of a daemon do now' },
  ],
  run: async ({ file, follow, port, bind }, { signal, out, hint }) => {
    const page = await tracePage();
    const kind = await kindOfSource(file);
    // what is live ends with the server, and is waited for
    const ended = new AbortController();
    const end = (): void => ended.abort();
    signal.addEventListener('abort', end, { once: true });
    const load: Load = (onProgress, renew) => (follow || kind !== 'file' ? watch(file, kind, renew, ended.signal) : loadTrace(file, { onProgress, signal: ended.signal }));
    const server = await TraceServer.start({ page, host: bind, port, load });
    const loaded = server.loaded();
    try {
      out.line(server.url);
      hint('Ctrl-C ends it');
      // what cannot be read ends the command, and not only the page
      await Promise.race([loaded, stopped(signal)]);
      await stopped(signal);
    } finally {
      end();
      await server.close();
      // a pipe may be silent for ever
      if (kind !== 'stream') await loaded.catch(() => undefined);
    }
  },
});

type Load = TraceServerOptions['load'];

async function watch(file: string, kind: Awaited<ReturnType<typeof kindOfSource>>, renew: Parameters<Load>[1], signal: AbortSignal): Promise<LoadedTrace> {
  const source = await openLive(file, kind, signal);
  try {
    return await loadLiveTrace(source.trace, file === '-' ? 'standard input' : file, renew, signal);
  } finally {
    await source.close();
  }
}

/** A server that is told to end has done what it was to do. */
function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
