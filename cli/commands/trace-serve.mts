import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { followTrace, loadLiveTrace, loadTrace, QmpClient, TraceServer, type LoadedTrace, type TraceServerOptions } from '../../src/index.js';
import { defineCommand } from '../command.mjs';
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
    // ends what is live before the server goes
    const ended = new AbortController();
    const end = (): void => ended.abort();
    signal.addEventListener('abort', end, { once: true });
    const server = await TraceServer.start({
      page: await tracePage(), host: bind, port, load: (onProgress, renew) => load({ file, follow }, onProgress, renew, ended.signal),
    });
    try {
      out.line(server.url);
      hint('Ctrl-C ends it');
      // what cannot be read ends the command, and not only the page
      await server.loaded();
      await stopped(signal);
    } finally {
      await server.close();
    }
  },
});

type Load = TraceServerOptions['load'];

async function load({ file, follow }: { file: string; follow: boolean }, onProgress: Parameters<Load>[0], renew: Parameters<Load>[1], signal: AbortSignal): Promise<LoadedTrace> {
  const stats = file === '-' ? null : await stat(file).catch(() => null);
  if (stats?.isSocket() === true) return traceDaemon(file, renew, signal);
  if (follow) return loadLiveTrace(file, followTrace(file, signal), renew, signal);
  if (file === '-' || stats?.isFIFO() === true) return loadLiveTrace(file, file, renew, signal);
  return loadTrace(file, { onProgress, signal });
}

/** Lets a daemon record into a folder of ours for as long as somebody looks. */
async function traceDaemon(socket: string, renew: Parameters<Load>[1], signal: AbortSignal): Promise<LoadedTrace> {
  const folder = await mkdtemp(path.join(tmpdir(), 'quiesce-trace-'));
  const daemon = await QmpClient.connect(socket);
  try {
    const file = path.join(folder, 'live');
    await daemon.execute('x-quiesce-trace-start', { file });
    try {
      return await loadLiveTrace(socket, followTrace(file, signal), renew, signal);
    } finally {
      await daemon.execute('x-quiesce-trace-stop');
    }
  } finally {
    await daemon.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** A server that is told to end has done what it was to do. */
function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
