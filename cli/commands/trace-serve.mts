import { loadTrace, TraceServer } from '../../src/index.js';
import { defineCommand } from '../command.mjs';
import { tracePage } from '../trace-page.mjs';

const DEFAULT_HOST = '127.0.0.1';

export const command = defineCommand({
  description: 'Serves a page that shows a trace: what was found wrong with it, where and when each I/O went, throughput, latencies, queue depth, and for each ' +
    'I/O where its time went and what it caused in the layers below. Prints the address of the page, which holds a token that only you know, and ends with Ctrl-C.',
  positionals: { trace: { help: "the trace: NAME of the files NAME.blktrace.0, …, one of these, a merged dump, a log of fio, or '-' for standard input" } },
  options: {
    port: { type: 'number', alias: 'p', max: 65_535, default: 0, help: 'listen on this TCP port; 0 takes a free one' },
    bind: { type: 'string', alias: 'b', value: 'ADDRESS', default: DEFAULT_HOST, help: 'TCP address; by default this machine only. Whoever can listen on the way to another sees the token' },
  },
  examples: [
    { line: 'quiesce trace serve mirror', does: 'the files mirror.blktrace.0, mirror.blktrace.1, …' },
    { line: 'quiesce trace serve mirror.bin --port 8080', does: 'a merged dump, at a port you know' },
  ],
  run: async ({ trace, port, bind }, { signal, out, hint }) => {
    const server = await TraceServer.start({
      page: await tracePage(), host: bind, port, load: (onProgress) => loadTrace(trace, { onProgress, signal }),
    });
    try {
      out.line(server.url);
      // what cannot be read ends the command, and not only the page
      await server.loaded();
      hint('Ctrl-C ends it');
      await stopped(signal);
    } finally {
      await server.close();
    }
  },
});

/** A server that is told to end has done what it was to do. */
function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
