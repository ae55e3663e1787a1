/** `quiesce job …`: the jobs of a daemon, ours or QEMU's, or of a machine. */
import { formatSize, readProgress } from '../../src/index.js';
import { defineCommand, type Command, type CommandContext } from '../command.mjs';
import { DaemonClient, textOf, type Reply } from '../daemon-client.mjs';
import { qmpSocketPath } from '../daemon/places.mjs';
import { convergenceText, percent } from '../job-text.mjs';
import type { Output } from '../output.mjs';

const DAEMON = { type: 'string', value: 'SOCK', help: "QMP socket of the daemon or machine; by default that of your 'quiesce daemon'" } as const;
const JSON_JOB = { type: 'boolean', help: 'print the job as it is then as JSON' } as const;
const ID = { help: 'the job, as job list names it' } as const;

async function withDaemon<T>(path: string | undefined, signal: AbortSignal, work: (daemon: DaemonClient) => Promise<T>): Promise<T> {
  const daemon = await DaemonClient.connect(path ?? qmpSocketPath(), signal);
  try {
    return await work(daemon);
  } finally {
    daemon.close();
  }
}

export const list = defineCommand({
  description: 'Lists the jobs of a daemon: how far they are, and of mirrors in copy mode auto in which phase.',
  positionals: {},
  options: { daemon: DAEMON, json: { type: 'boolean', help: 'print JSON: what query-jobs and query-block-jobs tell' } },
  examples: [
    { line: 'quiesce job list', does: "what your 'quiesce daemon' is doing" },
    { line: 'quiesce job list --daemon /run/vm.qmp', does: 'and a running QEMU' },
  ],
  run: ({ daemon, json }, { signal, out }) => withDaemon(daemon, signal, async (client) => {
    const jobs = await client.jobs();
    if (json) return out.json(jobs);
    if (jobs.length === 0) return out.line('no jobs');
    out.table(jobs, [
      { title: 'ID', value: (job) => String(job['id']) }, { title: 'TYPE', value: (job) => String(job['type']) },
      { title: 'STATUS', value: (job) => String(job['status']) }, { title: 'DONE', align: 'right', value: doneOf },
      { title: 'PHASE', value: (job) => readProgress(job).convergence?.phase ?? '-' }, { title: 'ERROR', value: (job) => textOf(job, 'error') ?? '-' },
    ]);
  }),
});

function doneOf(job: Reply): string {
  return percent(Number(job['current-progress']), Number(job['total-progress']));
}

export const show = defineCommand({
  description: 'Shows one job of a daemon: its state, how far it is, and of a mirror in copy mode auto whether it will end, and when.',
  positionals: { id: ID },
  options: { daemon: DAEMON, json: JSON_JOB },
  examples: [{ line: 'quiesce job show --daemon /run/quiesce.qmp mirror0', does: 'one job' }],
  run: ({ id, daemon, json }, { signal, out }) => withDaemon(daemon, signal, async (client) => {
    const job = await client.job(id);
    if (json) out.json(job);
    else tell(job, out);
  }),
});

function tell(job: Reply, out: Output): void {
  const [done, total] = [Number(job['current-progress']), Number(job['total-progress'])];
  out.line(summary(job));
  if (job['speed'] === undefined) return;
  const speed = Number(job['speed']);
  const { convergence, guestP99Ms, unverified } = readProgress(job);
  out.line(`copied ${formatSize(done)} of ${formatSize(total)}; speed limit: ${speed === 0 ? 'none' : `${formatSize(speed)}/s`}; I/O status: ${String(job['io-status'])}`);
  if (convergence !== null) out.line(`auto: ${convergenceText(convergence)}`);
  if (guestP99Ms !== null) out.line(`guests: 99 of 100 writes took ${guestP99Ms} ms at most`);
  if (unverified !== null) out.line(`comparing: ${formatSize(unverified)} left`);
  const next = NEXT[String(job['status'])];
  if (next !== undefined) out.line(next(String(job['id'])));
}

/** What a job waits for. */
const NEXT: Readonly<Record<string, (id: string) => string>> = {
  ready: (id) => `it waits: 'job complete ${id}' puts the target in the place of the source, 'job cancel ${id}' leaves it as a copy`,
  pending: (id) => `it waits: 'job finalize ${id}' lets it take effect`,
  concluded: (id) => `it has ended: 'job dismiss ${id}' forgets it`,
};

/** `mirror0: mirror, running, 45%`. */
function summary(job: Reply): string {
  const error = textOf(job, 'error');
  return `${String(job['id'])}: ${String(job['type'])}, ${String(job['status'])}, ${doneOf(job)}${error === undefined ? '' : `, ${error}`}`;
}

/** A command that says one verb of QMP, and what has become of the job. */
function verb(word: string, description: string, does: string): Command {
  return defineCommand({
    description,
    positionals: { id: ID },
    options: { daemon: DAEMON, json: JSON_JOB },
    examples: [{ line: `quiesce job ${word} --daemon /run/quiesce.qmp mirror0`, does }],
    run: ({ id, ...args }, context) => say(args, context, id, (client) => client.execute(`job-${word}`, { id })),
  });
}

interface VerbArgs {
  readonly daemon: string | undefined;
  readonly json: boolean;
}

function say({ daemon, json }: VerbArgs, { signal, out }: CommandContext, id: string, act: (client: DaemonClient, job: Reply) => Promise<unknown>): Promise<void> {
  return withDaemon(daemon, signal, async (client) => {
    await act(client, await client.job(id));
    const job = (await client.jobs()).find((one) => one['id'] === id) ?? null;
    if (json) out.json(job ?? { id, status: 'null' });
    else out.line(job === null ? `${id}: gone` : summary(job));
  });
}

export const pauseJob = verb('pause', 'Pauses a job; what guests write meanwhile is remembered.', 'let the disk to others for a while');
export const resume = verb('resume', 'Lets a paused job go on, also one that an error has stopped.', 'go on');
export const complete = verb('complete', 'Completes a mirror or commit that is ready: the users of its node move to the target.', 'move to the target');
export const finalize = verb('finalize', 'Lets a job that waits for it (auto-finalize: false) take effect.', 'let it take effect');
export const dismiss = verb('dismiss', 'Forgets a job that has ended (auto-dismiss: false), and its error.', 'forget it');

export const cancel = defineCommand({
  description: 'Ends a job. A mirror that is ready leaves a target that is what the source is now; otherwise, and with --force, the target is of no use. A commit or ' +
    'stream leaves a chain that shows the same disk.',
  positionals: { id: ID },
  options: { daemon: DAEMON, force: { type: 'boolean', help: 'at once, whatever the target does' }, json: JSON_JOB },
  examples: [{ line: 'quiesce job cancel --daemon /run/quiesce.qmp mirror0', does: 'end it' }],
  run: ({ id, force, ...args }, context) => say(args, context, id, (client, job) =>
    isBlockJob(job) ? client.execute('block-job-cancel', { device: id, force }) : client.execute('job-cancel', { id })),
});

/** Only they have a speed limit. */
function isBlockJob(job: Reply): boolean {
  return job['speed'] !== undefined;
}

export const setSpeed = defineCommand({
  description: 'Limits how fast a block job copies, from now on.',
  positionals: { id: ID, speed: { type: 'size', help: 'bytes per second, like 50M; 0 = no limit' } },
  options: { daemon: DAEMON, json: JSON_JOB },
  examples: [{ line: 'quiesce job set-speed --daemon /run/quiesce.qmp mirror0 50M', does: '50 MiB a second' }],
  run: ({ id, speed, ...args }, context) => say(args, context, id, (client) => client.execute('block-job-set-speed', { device: id, speed })),
});

export const change = defineCommand({
  description: 'Changes how a running mirror copies, at once and in any direction. QEMU can do so from 8.2 on, and only to write-blocking.',
  positionals: { id: ID },
  options: {
    daemon: DAEMON,
    'copy-mode': { type: 'string', choices: ['auto', 'background', 'write-blocking'], required: true, help: 'what becomes of guest writes' },
    json: JSON_JOB,
  },
  examples: [{ line: 'quiesce job change --daemon /run/quiesce.qmp mirror0 --copy-mode write-blocking', does: 'guests wait for the target from now on' }],
  run: ({ id, copyMode, ...args }, context) => say(args, context, id, (client) => client.execute('block-job-change', { id, type: 'mirror', 'copy-mode': copyMode })),
});
