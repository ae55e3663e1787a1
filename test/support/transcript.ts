/**
 * The same lines sent to qemu-storage-daemon and to a server of ours; what both send back is compared as bytes, after what must
 * differ (versions, times, ids that are counted) has been made equal.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { rm } from 'node:fs/promises';
import { StorageDaemon, type QmpServer } from '../../src/index.js';
import { appears } from './listening.js';
import { kill, start } from './run.js';

export interface Transcript {
  /** Sent in one piece behind the lines; whatever comes back until the reply to a last request is one more message. */
  readonly bytes?: Uint8Array;
  /** Sent as they are, each with a line end, one after the reply to the former. Bytes for what is no text. */
  readonly lines: readonly (string | Uint8Array)[];
  readonly pretty?: boolean;
  /** Arguments of qemu-storage-daemon besides the monitor's. */
  readonly args?: readonly string[];
  /** Each line brings what comes up to its reply, events too. */
  readonly untilReply?: boolean;
  /** What is to have happened before a line is sent. */
  readonly before?: Readonly<Record<number, () => Promise<unknown>>>;
  /** Its disks fail, at the end too. */
  readonly failing?: boolean;
  /** How many messages each line brings, where that is not one. */
  readonly replies?: Readonly<Record<number, number>>;
}

/** Stands for the reply to a command that ended the process. */
export const DIED = '{"error" the end';

/** Long, since a message that comes late is a machine with much to do. */
const MESSAGE_MS = 60_000;

const CAPABILITIES = '{"execute":"qmp_capabilities"}';

/** A script that negotiates first. */
export function negotiated(...lines: readonly (string | Uint8Array)[]): Transcript {
  return { lines: [CAPABILITIES, ...lines] };
}

/** What qemu-storage-daemon answers, message by message, normalised. */
export async function theirTranscript(transcript: Transcript, socketPath: string): Promise<string[]> {
  const chardev = `socket,id=monitor,path=${socketPath},server=on,wait=off`;
  const monitor = `chardev=monitor${transcript.pretty === true ? ',pretty=on' : ''}`;
  const child = start('qemu-storage-daemon', ['--chardev', chardev, '--monitor', monitor, ...transcript.args ?? []]);
  try {
    await appears(socketPath);
    return await converse(transcript, socketPath);
  } finally {
    await kill(child);
    await rm(socketPath, { force: true });
  }
}

/** What our server answers, over a socket too. */
export async function ourTranscript(transcript: Transcript, socketPath: string, server: QmpServer): Promise<string[]> {
  const listener = createServer({ allowHalfOpen: true }, (socket) => void server.attach(socket, { pretty: transcript.pretty }));
  await listening(listener, socketPath);
  try {
    return await converse(transcript, socketPath);
  } finally {
    await server.close();
    await new Promise<void>((resolve) => { listener.close(() => resolve()); });
  }
}

/** What a whole daemon of ours answers, its monitor on a character device `monitor` as the peer's. */
export async function ourDaemonTranscript(transcript: Transcript, socketPath: string): Promise<string[]> {
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' } });
  await daemon.chardevs.add('monitor', { kind: 'socket', address: { type: 'unix', path: socketPath }, server: true, wait: false, reconnectSeconds: 0 });
  daemon.addMonitor('monitor', { pretty: transcript.pretty === true });
  try {
    return await converse(transcript, socketPath);
  } finally {
    await daemon.close().catch((error: unknown) => { if (transcript.failing !== true) throw error; });
  }
}

/** Sends line after line; resolves with the greeting and all replies. */
export async function converse(transcript: Transcript, socketPath: string): Promise<string[]> {
  const socket = connect({ path: socketPath });
  const messages = new Messages(socket, transcript.pretty === true);
  const received = [await messages.next()];
  for (const [index, line] of transcript.lines.entries()) {
    await transcript.before?.[index]?.();
    socket.write(typeof line === 'string' ? `${line}\n` : Buffer.concat([line, Buffer.from('\n')]));
    if (transcript.untilReply === true) {
      // who dies of a command has said what it had to say
      do received.push(await messages.next().catch(() => DIED));
      while (!/^\{"(?:return|error)"/.test(received.at(-1)!));
      if (received.at(-1) === DIED) break;
      continue;
    }
    for (let left = transcript.replies?.[index] ?? 1; left > 0; left--) received.push(await messages.next());
  }
  if (transcript.bytes !== undefined) {
    // a line end leaves a string, FF all else
    socket.write(Buffer.concat([transcript.bytes, Buffer.from([0x0a, 0xff, 0x0a]), Buffer.from('{"execute":"query-version","id":"the last one"}\n')]));
    const rest: string[] = [];
    do rest.push(await messages.next()); while (!rest.at(-1)!.includes('"the last one"'));
    received.push(...rest);
  }
  socket.destroy();
  return received.map(normalise);
}

/** Makes equal what may differ: the version in the greeting and in `query-version`, and times. */
export function normalise(message: string): string {
  return message
    .replace(/"qemu": \{\s*"micro": \d+,\s+"minor": \d+,\s+"major": \d+\s*\}/g, '"qemu": VERSION')
    .replace(/"package": "(?:[^"\\]|\\.)*"/g, '"package": PACKAGE')
    .replace(/"timestamp": \{\s*"seconds": \d+,\s+"microseconds": \d+\s*\}/g, '"timestamp": TIME');
}

/** Cuts what a monitor sends into messages; a pretty one ends with a brace at the left edge. */
class Messages {
  readonly #pretty: boolean;
  #text = '';
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(socket: Socket, pretty: boolean) {
    this.#pretty = pretty;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#text += text;
      this.#wake();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake();
    };
    socket.on('error', end).on('close', end);
  }

  async next(): Promise<string> {
    const deadline = AbortSignal.timeout(MESSAGE_MS);
    for (;;) {
      const end = this.#pretty ? this.#text.indexOf('\r\n}\r\n') + 3 : this.#text.indexOf('\r\n');
      if (end >= (this.#pretty ? 3 : 0)) {
        const message = this.#text.slice(0, end + 2);
        this.#text = this.#text.slice(end + 2);
        return message;
      }
      if (this.#ended || deadline.aborted) throw new Error(`no message came ${this.#ended ? 'before the end' : `in ${MESSAGE_MS} ms`}; so far: '${this.#text}'`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        deadline.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}
