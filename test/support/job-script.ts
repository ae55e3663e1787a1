/** One script of QMP commands and waits, played to qemu-storage-daemon and to ours: what comes back, event by event. */
import { connect, type Socket } from 'node:net';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageDaemon } from '../../src/index.js';
import { kill, start } from './run.js';
import { appears } from './listening.js';
import { normalise } from './transcript.js';

export type JobStep =
  | readonly [command: string, args?: Readonly<Record<string, unknown>>]
  /** Waits for a message that contains this. `here`: it may have come already, with the last command or since. */
  | { readonly until: string; readonly here?: boolean }
  /** Waits for what a job does in so many milliseconds. */
  | { readonly ms: number }
  /** Waits until the block job does nothing: it sleeps, stands still or has ended, and what it tells of itself has been the same for a while. `moved`: it has done so many bytes already. */
  | { readonly asleep: string; readonly moved?: number }
  /** Done by the test, at this point of the script. */
  | { readonly run: () => Promise<void> };

/** For each step what came since the last one: up to the reply of a command, up to the message that was waited for. */
export type JobReplies = readonly (readonly string[])[];

export async function theirReplies(steps: readonly JobStep[], folder: string): Promise<JobReplies> {
  const path = join(folder, 'qmp.sock');
  const child = start('qemu-storage-daemon', ['--chardev', `socket,id=m,path=${path},server=on,wait=off`, '--monitor', 'chardev=m']);
  try {
    await appears(path);
    return await play(steps, path);
  } finally {
    await kill(child);
    await rm(path, { force: true });
  }
}

export async function ourReplies(steps: readonly JobStep[], folder: string): Promise<JobReplies> {
  const path = join(folder, 'qmp.sock');
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' } });
  await daemon.chardevs.add('m', { kind: 'socket', address: { type: 'unix', path }, server: true, wait: false, reconnectSeconds: 0 });
  daemon.addMonitor('m');
  try {
    return await play(steps, path);
  } finally {
    await daemon.close();
  }
}

/** A script did not go on; what came until then can be compared all the same. */
export class StuckScript extends Error {
  readonly replies: JobReplies;

  constructor(cause: unknown, replies: JobReplies) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.replies = replies;
  }
}

const PATIENCE_MS = Number(process.env['QUIESCE_PATIENCE'] ?? 30_000);

/** The socket is there before its daemon listens. */
async function connected(path: string): Promise<Socket> {
  for (let attempt = 0; ; attempt++) {
    const socket = connect({ path });
    const error = await new Promise<Error | null>((resolve) => { socket.once('connect', () => resolve(null)).once('error', resolve); });
    if (error === null) return socket;
    if (attempt >= 500) throw error;
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}

async function play(steps: readonly JobStep[], path: string): Promise<JobReplies> {
  const socket = await connected(path);
  const messages: string[] = [];
  let text = '';
  let wake = (): void => undefined;
  socket.setEncoding('utf8').on('data', (data: string) => {
    text += data;
    const lines = text.split('\r\n');
    text = lines.pop()!;
    messages.push(...lines.map((line) => same(normalise(line))));
    wake();
  }).on('error', () => wake()).on('close', () => wake());
  /** Takes the messages up to one that is wanted. */
  const upTo = async (wanted: (message: string) => boolean, what: string): Promise<string[]> => {
    const deadline = setTimeout(() => socket.destroy(), PATIENCE_MS);
    try {
      for (;;) {
        const at = messages.findIndex(wanted);
        if (at >= 0) return messages.splice(0, at + 1);
        if (socket.destroyed) throw new Error(`${what} did not come, but ${JSON.stringify(messages)}`);
        await new Promise<void>((resolve) => { wake = resolve; });
      }
    } finally {
      clearTimeout(deadline);
    }
  };
  const command = async (name: string, args?: Readonly<Record<string, unknown>>): Promise<string[]> => {
    socket.write(`${JSON.stringify({ execute: name, ...(args === undefined ? {} : { arguments: args }) })}\n`);
    return upTo((message) => /^\{"(?:return|error)"/.test(message), `the reply to ${name}`);
  };
  /** Events that come meanwhile. */
  const asleep = async (id: string, moved: number): Promise<string[]> => {
    const deadline = performance.now() + PATIENCE_MS;
    const events: string[] = [];
    let before = '';
    for (let alike = 0; alike < 4;) {
      await new Promise((resolve) => { setTimeout(resolve, 6); });
      const told = await command('query-block-jobs');
      const now = told.pop()!;
      events.push(...told);
      if (performance.now() > deadline) throw new Error(`the job does not stand still: ${now}`);
      const job = (JSON.parse(now) as { return: readonly { device: string; busy: boolean; offset: number }[] }).return.find(({ device }) => device === id);
      alike = now === before && job?.busy !== true && (job === undefined || job.offset >= moved) ? alike + 1 : 0;
      before = now;
    }
    return events;
  };
  await upTo((message) => message.includes('"QMP"'), 'the greeting');
  const replies: string[][] = [];
  let lastCommand = 0;
  const one = async (step: JobStep): Promise<string[]> => {
    if ('until' in step) {
      const came = step.here === true && replies.slice(lastCommand).flat().some((message) => message.includes(step.until));
      return came ? [] : upTo((message) => message.includes(step.until), step.until);
    }
    if ('asleep' in step) return asleep(step.asleep, step.moved ?? 0);
    if (!('run' in step || 'ms' in step)) {
      lastCommand = replies.length;
      return command(...step);
    }
    await ('run' in step ? step.run() : new Promise((resolve) => { setTimeout(resolve, step.ms); }));
    return [];
  };
  try {
    for (const step of [['qmp_capabilities'] as JobStep, ...steps]) replies.push(await one(step));
  } catch (error) {
    throw new StuckScript(error, replies.slice(1));
  } finally {
    socket.destroy();
  }
  return replies.slice(1);
}

/** Generated names, and how the host stores a file, may differ. */
function same(message: string): string {
  return message.replace(/#block\d+/g, '#block').replace(/"actual-size": \d+/g, '"actual-size": N');
}
