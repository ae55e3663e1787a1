import { BlockError, readProgress } from '../../src/index.js';
import { JSON_EVENTS } from '../common-options.mjs';
import { defineCommand, type CommandContext } from '../command.mjs';
import { DaemonClient, textOf, type Reply } from '../daemon-client.mjs';
import { qmpSocketPath } from '../daemon/places.mjs';
import { describeProgress, drawJob, EventLines } from '../job-text.mjs';

const LOOK_MS = 200;

interface Ended {
  readonly cancelled: boolean;
  readonly error: string | undefined;
}

export const command = defineCommand({
  description: 'Follows a job until it has ended: a bar on a terminal, and a line for each state and phase; with --json all events, an object a line. Exit code 0 when it ' +
    'has completed, 1 when it has failed or was cancelled. Ctrl-C ends the watching, not the job.',
  positionals: { id: { help: 'the job, as job list names it' } },
  options: {
    daemon: { type: 'string', value: 'SOCK', help: "QMP socket of the daemon or machine; by default that of your 'quiesce daemon'" },
    json: JSON_EVENTS,
  },
  examples: [
    { line: 'quiesce job watch --daemon /run/quiesce.qmp mirror0', does: 'until it ends' },
    { line: 'quiesce job watch mirror0 && notify-send done', does: 'and then something else' },
  ],
  run: async ({ id, daemon, json }, context) => {
    const client = await DaemonClient.connect(daemon ?? qmpSocketPath(), context.signal);
    try {
      const { cancelled, error } = await new Watch(client, id, json, context).untilEnded();
      if (cancelled) throw new BlockError('CANCELLED', `the job '${id}' was cancelled`);
      if (error !== undefined) throw new BlockError('PEER', `the job '${id}' failed: ${error}`);
    } finally {
      client.close();
    }
  },
});

class Watch {
  readonly #client: DaemonClient;
  readonly #id: string;
  readonly #json: boolean;
  readonly #context: CommandContext;
  readonly #lines: EventLines<Reply>;
  readonly #wake = new AbortController();
  #ended: Ended | null = null;
  #told = '';

  constructor(client: DaemonClient, id: string, json: boolean, context: CommandContext) {
    this.#client = client;
    this.#id = id;
    this.#json = json;
    this.#context = context;
    this.#lines = new EventLines((line) => context.out.line(line), (job) => ({ id, status: job['status'], ...describeProgress(readProgress(job)) }));
  }

  async untilEnded(): Promise<Ended> {
    const { signal } = this.#context;
    const bars = await this.#context.progress();
    this.#client.qmp.subscribe(({ name, data }) => this.#heard(name, data));
    let job: Reply | null = await this.#client.job(this.#id);
    while (this.#ended === null && job !== null && job['status'] !== 'concluded') {
      this.#tell(job);
      if (job['speed'] !== undefined) drawJob(bars, readProgress(job), String(job['type']));
      await pause(LOOK_MS, AbortSignal.any([signal, this.#wake.signal]));
      signal.throwIfAborted();
      job = (await this.#client.jobs()).find((one) => one['id'] === this.#id) ?? null;
    }
    return this.#ended ?? { cancelled: false, error: job === null ? 'it has gone without a word' : textOf(job, 'error') };
  }

  #heard(name: string, data: Reply): void {
    if (data['device'] !== this.#id && data['id'] !== this.#id) return;
    if (this.#json) this.#lines.event(name, data);
    if (name === 'BLOCK_JOB_COMPLETED') this.#end({ cancelled: false, error: textOf(data, 'error') });
    else if (name === 'BLOCK_JOB_CANCELLED') this.#end({ cancelled: true, error: undefined });
    else if (name === 'JOB_STATUS_CHANGE' && data['status'] === 'concluded') this.#wake.abort();
  }

  #end(ended: Ended): void {
    this.#ended = ended;
    this.#wake.abort();
  }

  /** States and phases, for a bar tells the rest. */
  #tell(job: Reply): void {
    if (this.#json) return this.#lines.progress(job);
    const phase = readProgress(job).convergence?.phase;
    const text = `${this.#id}: ${String(job['status'])}${phase === undefined ? '' : `, ${phase}`}`;
    if (text !== this.#told) this.#context.out.line(text);
    this.#told = text;
  }
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
