/** `quiesce job …`: the block jobs of a storage daemon. */
import { BlockError, formatSize } from '../../src/index.js';
import { JSON_OUTPUT } from '../common-options.mjs';
import { defineCommand, type Command } from '../command.mjs';
import { DaemonClient, textOf, type Reply } from '../daemon-client.mjs';
import { convergenceOf, convergenceText, percent } from '../job-text.mjs';
import type { Output } from '../output.mjs';

const DAEMON = { type: 'string', value: 'SOCK', required: true, help: 'QMP socket of the storage daemon' } as const;
const ID = { help: 'the job, as job list names it' } as const;
const WATCH_MS = 500;

async function withDaemon<T>(path: string, signal: AbortSignal, work: (daemon: DaemonClient) => Promise<T>): Promise<T> {
  const daemon = await DaemonClient.connect(path, signal);
  try {
    return await work(daemon);
  } finally {
    daemon.close();
  }
}

export const list = defineCommand({
  description: 'Lists the block jobs of a storage daemon: how far they are, and of mirrors in copy mode auto how they get on.',
  positionals: {},
  options: { daemon: DAEMON, json: JSON_OUTPUT },
  examples: [{ line: 'quiesce job list --daemon /run/quiesce.qmp', does: 'what is going on' }],
  run: ({ daemon, json }, { signal, out }) => withDaemon(daemon, signal, async (client) => {
    const jobs = await client.execute<Reply[]>('query-block-jobs');
    if (json) return out.json(jobs);
    if (jobs.length === 0) return out.line('no block jobs');
    out.table(jobs, [
      { title: 'ID', value: (job) => String(job['device']) }, { title: 'TYPE', value: (job) => String(job['type']) },
      { title: 'STATUS', value: (job) => String(job['status']) }, { title: 'DONE', align: 'right', value: percent },
      { title: 'PHASE', value: (job) => textOf(convergenceOf(job), 'phase') ?? '-' },
    ]);
  }),
});

export const show = defineCommand({
  description: 'Shows one block job of a storage daemon.',
  positionals: { id: ID },
  options: { daemon: DAEMON, json: JSON_OUTPUT },
  examples: [{ line: 'quiesce job show --daemon /run/quiesce.qmp mirror0', does: 'one job' }],
  run: ({ id, daemon, json }, { signal, out }) => withDaemon(daemon, signal, async (client) => {
    const job = await find(client, id);
    if (json) out.json(job);
    else tell(job, out);
  }),
});

async function find(client: DaemonClient, id: string): Promise<Reply> {
  const job = await client.blockJob(id);
  if (job === null) throw new BlockError('NOT_FOUND', `there is no block job '${id}'`);
  return job;
}

function tell(job: Reply, out: Output): void {
  const speed = Number(job['speed']);
  out.line(`${String(job['device'])}: ${String(job['type'])}, ${String(job['status'])}, ${formatSize(Number(job['offset']))} of ${formatSize(Number(job['len']))} (${percent(job)})`);
  out.line(`speed limit: ${speed === 0 ? 'none' : `${formatSize(speed)}/s`}; I/O status: ${String(job['io-status'])}`);
  const now = convergenceOf(job);
  if (now !== null) out.line(`auto: ${convergenceText(now)}`);
  if (job['error'] !== undefined) out.line(`error: ${textOf(job, 'error')!}`);
}

export const watch = defineCommand({
  description: 'Follows a block job until it has ended: a line for each change, or with --json an object a line. Exit code 0 when it has completed.',
  positionals: { id: ID },
  options: { daemon: DAEMON, json: JSON_OUTPUT },
  examples: [{ line: 'quiesce job watch --daemon /run/quiesce.qmp mirror0', does: 'until it ends' }],
  run: ({ id, daemon, json }, { signal, out }) => withDaemon(daemon, signal, async (client) => {
    let ended: { readonly name: string; readonly error: string | undefined } | null = null;
    const wake = new AbortController();
    client.qmp.subscribe(({ name, data }) => {
      if (data['device'] === id && (name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED')) {
        ended = { name, error: textOf(data, 'error') };
        wake.abort();
      }
    });
    await find(client, id);
    let last = '';
    while (ended === null && !signal.aborted) {
      const job = await client.blockJob(id);
      if (job === null) break;
      const now = convergenceOf(job);
      const text = `${String(job['status'])} ${percent(job)}${now === null ? '' : ` ${convergenceText(now)}`}`;
      if (json) out.line(JSON.stringify(job));
      else if (text !== last) out.line(text);
      last = text;
      await pause(WATCH_MS, AbortSignal.any([signal, wake.signal]));
    }
    signal.throwIfAborted();
    return verdict(ended, id);
  }),
});

function verdict(ended: { readonly name: string; readonly error: string | undefined } | null, id: string): void {
  if (ended === null || ended.name === 'BLOCK_JOB_CANCELLED') throw new BlockError('CANCELLED', ended === null ? `the block job '${id}' is gone` : `the block job '${id}' was cancelled`);
  if (ended.error !== undefined) throw new BlockError('PEER', `the block job '${id}' failed: ${ended.error}`);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}

/** A command that says one verb of QMP. */
function verb(word: string, description: string, qmp: string, member: 'id' | 'device'): Command {
  return defineCommand({
    description,
    positionals: { id: ID },
    options: { daemon: DAEMON },
    examples: [{ line: `quiesce job ${word} --daemon /run/quiesce.qmp mirror0`, does: word }],
    run: ({ id, daemon }, { signal }) => withDaemon(daemon, signal, async (client) => { await client.execute(qmp, { [member]: id }); }),
  });
}

export const pauseJob = verb('pause', 'Pauses a block job; what guests write meanwhile is remembered.', 'block-job-pause', 'device');
export const resume = verb('resume', 'Lets a paused block job go on.', 'block-job-resume', 'device');
export const complete = verb('complete', 'Completes a job that is ready: the users of its node move to the target.', 'block-job-complete', 'device');
export const dismiss = verb('dismiss', 'Forgets a job that has ended.', 'block-job-dismiss', 'id');

export const cancel = defineCommand({
  description: 'Ends a block job. A mirror that is ready leaves a target that is what the source is now; otherwise, and with --force, the target is of no use.',
  positionals: { id: ID },
  options: { daemon: DAEMON, force: { type: 'boolean', help: 'at once, whatever the target does' } },
  examples: [{ line: 'quiesce job cancel --daemon /run/quiesce.qmp mirror0', does: 'end it' }],
  run: ({ id, daemon, force }, { signal }) => withDaemon(daemon, signal, async (client) => { await client.execute('block-job-cancel', { device: id, force }); }),
});

export const setSpeed = defineCommand({
  description: 'Limits how fast a block job copies.',
  positionals: { id: ID, speed: { type: 'size', help: 'bytes per second, like 50M; 0 = no limit' } },
  options: { daemon: DAEMON },
  examples: [{ line: 'quiesce job set-speed --daemon /run/quiesce.qmp mirror0 50M', does: '50 MiB a second' }],
  run: ({ id, speed, daemon }, { signal }) => withDaemon(daemon, signal, async (client) => { await client.execute('block-job-set-speed', { device: id, speed }); }),
});

export const change = defineCommand({
  description: 'Changes how a running mirror copies, at once and in any direction.',
  positionals: { id: ID },
  options: {
    daemon: DAEMON,
    'copy-mode': { type: 'string', choices: ['auto', 'background', 'write-blocking'], required: true, help: 'what becomes of guest writes' },
  },
  examples: [{ line: 'quiesce job change --daemon /run/quiesce.qmp mirror0 --copy-mode write-blocking', does: 'guests wait for the target from now on' }],
  run: ({ id, daemon, copyMode }, { signal }) => withDaemon(daemon, signal, async (client) => {
    await client.execute('block-job-change', { id, type: 'mirror', 'copy-mode': copyMode });
  }),
});
