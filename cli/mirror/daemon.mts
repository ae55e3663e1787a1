/** `quiesce mirror --daemon`: a mirror of a live node, steered and watched over QMP. */
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { BlockError, createImage, formatSize, isNbdName, parseNbdName, type ConvergenceOptions } from '../../src/index.js';
import type { CommandContext } from '../command.mjs';
import { DaemonClient, textOf, type Reply } from '../daemon-client.mjs';
import { convergenceOf, seconds } from '../job-text.mjs';
import { statOf } from '../same-image.mjs';

export interface DaemonMirrorArgs {
  readonly daemon: string;
  readonly source: string;
  readonly target: string;
  readonly pivot: boolean;
  readonly copyMode: string;
  readonly convergence: ConvergenceOptions;
  readonly speed: number | undefined;
  readonly targetFormat: string;
  readonly existing: boolean;
  readonly json: boolean;
}

const WATCH_MS = 200;

/** Ends with the job: what was made for it and is of no use goes. */
export async function mirrorOnDaemon(args: DaemonMirrorArgs, context: CommandContext): Promise<void> {
  const client = await DaemonClient.connect(args.daemon, context.signal);
  try {
    await new DaemonMirror(client, args, context).run();
  } finally {
    client.close();
  }
}

class DaemonMirror {
  readonly #client: DaemonClient;
  readonly #args: DaemonMirrorArgs;
  readonly #context: CommandContext;
  readonly #id = `mirror-${process.pid}`;
  /** Made by this command, until the daemon's users have it. */
  #file: string | null = null;
  #node: string | null = null;
  #end: { readonly name: string; readonly data: Reply } | null = null;
  #wake: () => void = () => undefined;

  constructor(client: DaemonClient, args: DaemonMirrorArgs, context: CommandContext) {
    this.#client = client;
    this.#args = args;
    this.#context = context;
  }

  async run(): Promise<void> {
    const startedMs = performance.now();
    let safe = false;
    try {
      const target = await this.#openTarget();
      const job = await this.#mirror(target);
      safe = true;
      this.#tellEnd(job, performance.now() - startedMs);
    } finally {
      if (this.#node !== null && !(safe && this.#args.pivot)) await this.#client.execute('blockdev-del', { 'node-name': this.#node }).catch(() => undefined);
      if (this.#file !== null && !safe) rmSync(this.#file, { force: true });
    }
  }

  /** The node to write to: one that is there, or one that is made of a name. */
  async #openTarget(): Promise<string> {
    const { source, target, targetFormat, existing } = this.#args;
    const nodes = await this.#client.execute<Reply[]>('query-named-block-nodes', { flat: true });
    if (nodes.some((node) => node['node-name'] === target)) return target;
    const from = nodes.find((node) => node['node-name'] === source);
    if (from === undefined) throw new BlockError('NOT_FOUND', `the daemon at '${this.#args.daemon}' has no node '${source}'`);
    const size = Number((from['image'] as Reply)['virtual-size']);
    const file = isNbdName(target) ? exportOptions(target) : { driver: 'file', filename: resolve(target) };
    if (!isNbdName(target) && !existing) {
      const found = statOf(target);
      if (found === undefined) this.#file = resolve(target);
      await createImage(target, { format: targetFormat as 'raw' | 'qcow2', size });
    }
    const name = `target-${process.pid}`;
    await this.#client.execute('blockdev-add', { driver: targetFormat, 'node-name': name, discard: 'unmap', file: { ...file, discard: 'unmap' } });
    this.#node = name;
    return name;
  }

  /** Resolves with the last that was told of the job, when it has completed. */
  async #mirror(target: string): Promise<Reply> {
    const { source, copyMode, speed, json } = this.#args;
    const { signal, out } = this.#context;
    let ready = false;
    this.#client.qmp.subscribe(({ name, data }) => {
      if (json && (data['device'] === this.#id || data['id'] === this.#id)) out.line(JSON.stringify({ event: name, ...data }));
      if (data['device'] !== this.#id) return;
      if (name === 'BLOCK_JOB_READY') ready = true;
      if (name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED') this.#end = { name, data };
      this.#wake();
    });
    signal.throwIfAborted();
    await this.#client.execute('blockdev-mirror', {
      'job-id': this.#id, device: source, target, sync: 'full', ...speed === undefined ? {} : { speed },
      ...copyMode === 'auto' ? { 'x-quiesce-copy-mode': 'auto', ...this.#convergence() } : { 'copy-mode': copyMode },
    });
    const interrupted = (): void => this.#wake();
    signal.addEventListener('abort', interrupted, { once: true });
    try {
      await this.#watch(() => ready);
    } finally {
      signal.removeEventListener('abort', interrupted);
    }
    return this.#verdict();
  }

  #convergence(): Record<string, number> {
    const { deadlineMs, maxGuestLatencyMs, minGuestRate } = this.#args.convergence;
    const all = { 'x-quiesce-deadline': deadlineMs, 'x-quiesce-max-guest-latency': maxGuestLatencyMs, 'x-quiesce-min-guest-rate': minGuestRate };
    return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, number] => entry[1] !== undefined));
  }

  async #watch(isReady: () => boolean): Promise<void> {
    const { signal } = this.#context;
    const bars = await this.#context.progress();
    let started = false;
    let asked: 'no' | 'end' | 'cancel' = 'no';
    while (this.#end === null) {
      if (signal.aborted && asked !== 'cancel') {
        asked = 'cancel';
        await this.#client.execute('block-job-cancel', { device: this.#id, force: true }).catch(() => undefined);
      } else if (isReady() && asked === 'no') {
        asked = 'end';
        await this.#client.execute(this.#args.pivot ? 'block-job-complete' : 'block-job-cancel', { device: this.#id });
      }
      const job = await this.#client.blockJob(this.#id);
      if (job !== null && Number(job['len']) > 0) {
        if (!started) bars.start(Number(job['len']), 'mirror');
        started = true;
        bars.update(Number(job['offset']), `mirror ${textOf(convergenceOf(job), 'phase') ?? ''}`);
      }
      if (this.#end === null) await this.#pause(WATCH_MS);
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((go) => {
      const timer = setTimeout(go, ms);
      this.#wake = () => {
        clearTimeout(timer);
        go();
      };
    });
  }

  #verdict(): Reply {
    const { name, data } = this.#end!;
    this.#context.signal.throwIfAborted();
    if (name === 'BLOCK_JOB_CANCELLED') throw new BlockError('CANCELLED', `somebody cancelled the mirror '${this.#id}'`);
    if (data['error'] !== undefined) throw new BlockError('PEER', `the mirror failed: ${textOf(data, 'error')!}`);
    return data;
  }

  #tellEnd(job: Reply, tookMs: number): void {
    const { source, target, pivot, json } = this.#args;
    const { out } = this.#context;
    const written = Number(job['len']);
    if (json) out.line(JSON.stringify({ source, target, written, pivoted: pivot, seconds: Math.round(tookMs) / 1000 }));
    else out.line(`'${target}' ${pivot ? `has taken the place of node '${source}'` : `is what node '${source}' was`}: ${formatSize(written)} copied in ${seconds(tookMs)}`);
  }
}

function exportOptions(name: string): Record<string, unknown> {
  const { address, exportName, tls } = parseNbdName(name);
  if (tls !== null) throw new BlockError('NOT_SUPPORTED', 'a TLS target needs credentials in the daemon: add it as a node, and name that');
  const server = address.type === 'unix' ? { type: 'unix', path: address.path } : { type: 'inet', host: address.host, port: String(address.port) };
  return { driver: 'nbd', server, export: exportName };
}
