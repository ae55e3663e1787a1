/** One script of QMP commands and waits, played to qemu-storage-daemon and to ours: what comes back, event by event. */
import { connect } from 'node:net';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageDaemon } from '../../src/index.js';
import { kill, start } from './run.js';
import { appears, normalise } from './transcript.js';

export type JobStep =
  | readonly [command: string, args?: Readonly<Record<string, unknown>>]
  /** Waits for a message that contains this. */
  | { readonly until: string }
  /** Waits for what a job does in so many milliseconds. */
  | { readonly ms: number };

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

const PATIENCE_MS = 30_000;

async function play(steps: readonly JobStep[], path: string): Promise<JobReplies> {
  const socket = connect({ path });
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
  await upTo((message) => message.includes('"QMP"'), 'the greeting');
  const replies: string[][] = [];
  for (const step of [['qmp_capabilities'] as JobStep, ...steps]) {
    if ('until' in step) replies.push(await upTo((message) => message.includes(step.until), step.until));
    else if ('ms' in step) {
      await new Promise((resolve) => { setTimeout(resolve, step.ms); });
      replies.push([]);
    } else {
      socket.write(`${JSON.stringify({ execute: step[0], ...(step[1] === undefined ? {} : { arguments: step[1] }) })}\n`);
      replies.push(await upTo((message) => /^\{"(?:return|error)"/.test(message), `the reply to ${step[0]}`));
    }
  }
  socket.destroy();
  return replies.slice(1);
}

/** Generated names, and how the host stores a file, may differ. */
function same(message: string): string {
  return message.replace(/#block\d+/g, '#block').replace(/"actual-size": \d+/g, '"actual-size": N');
}
