/** Character devices on files, pipes and terminals of the host. */
import fs from 'node:fs';
import { Socket } from 'node:net';
import { Duplex, type Readable, type Writable } from 'node:stream';
import { ReadStream } from 'node:tty';
import { BlockError, wrapHostError } from '../base/errors.js';
import { capabilities, duplicateDescriptor, isHungUp, unlockTerminal } from '../base/libc.js';
import type { Chardev, Frontend } from './chardev.js';
import { StreamChardev } from './chardev-stream.js';

const { O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } = fs.constants;
/** As often as QEMU looks whether somebody has opened the other side of a terminal. */
const TERMINAL_POLL_MS = 1000;

function open(path: string, flags: number): number {
  try {
    return fs.openSync(path, flags, 0o666);
  } catch (error) {
    throw wrapHostError(error, `Could not open '${path}'`, { node: path });
  }
}

/** What is written goes into a file; what is read comes from another one, if any. */
export function openFileChardev(id: string, out: string, input: string | null, append: boolean): Chardev {
  const writeFd = open(out, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC));
  try {
    const readable = input === null ? null : fs.createReadStream('', { fd: open(input, O_RDONLY | O_NONBLOCK) });
    return new StreamChardev(id, 'file', joined(readable, fs.createWriteStream('', { fd: writeFd })));
  } catch (error) {
    fs.closeSync(writeFd);
    throw error;
  }
}

/** `PATH.in` is read and `PATH.out` written, or where these are missing, PATH itself both. All are opened for both, so none of them ends. */
export function openPipeChardev(id: string, path: string): Chardev {
  const flags = O_RDWR | O_NONBLOCK;
  const opened: number[] = [];
  try {
    for (const name of [`${path}.in`, `${path}.out`]) opened.push(fs.openSync(name, flags));
  } catch {
    for (const fd of opened.splice(0)) fs.closeSync(fd);
    opened.push(open(path, flags));
  }
  const [from, to = from] = opened as [number, number?];
  const reader = new Socket({ fd: from, readable: true, writable: from === to });
  return new StreamChardev(id, 'pipe', from === to ? reader : joined(reader, new Socket({ fd: to, readable: false, writable: true })));
}

/** A terminal of its own: whoever opens the other side is the client, until the last of them closes it; then the next one. */
export class TerminalChardev implements Chardev {
  readonly id: string;
  /** The path of the other side. */
  readonly path: string;
  frontend: Frontend | null = null;
  readonly #fd: number;
  #client: Duplex | null = null;
  readonly #timer: NodeJS.Timeout;

  constructor(id: string) {
    this.id = id;
    const { ioctl, whyNot } = capabilities();
    if (!ioctl) throw new BlockError('NOT_SUPPORTED', `Failed to create PTY: terminals are not available (${whyNot})`);
    const fd = open('/dev/ptmx', O_RDWR | O_NOCTTY | O_NONBLOCK);
    try {
      this.path = unlockTerminal(fd);
      // once opened and closed, its other side tells when nobody is there
      fs.closeSync(fs.openSync(this.path, O_RDWR | O_NOCTTY));
    } catch (error) {
      fs.closeSync(fd);
      throw wrapHostError(error, 'Failed to create PTY');
    }
    this.#fd = fd;
    this.#timer = setInterval(() => this.#look(), TERMINAL_POLL_MS);
    this.#timer.unref();
  }

  filename(): string { return `pty:${this.path}`; }

  setFrontend(frontend: Frontend | null): void {
    this.frontend = frontend;
    this.#look();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#client?.destroy();
    fs.closeSync(this.#fd);
  }

  #look(): void {
    if (this.#client !== null || this.frontend === null || isHungUp(this.#fd)) return;
    const client = new ReadStream(duplicateDescriptor(this.#fd));
    // the read fails when the other side is closed
    client.on('error', () => undefined);
    client.once('close', () => { this.#client = null; });
    this.#client = client;
    this.frontend(client);
  }
}

/** Reads from one and writes to the other; without the first nothing ever comes. */
function joined(readable: Readable | null, writable: Writable): Duplex {
  const stream = new Duplex({
    read: () => void readable?.resume(),
    write: (chunk: Buffer, _, done) => { writable.write(chunk, () => done()); },
    final: (done) => { writable.end(() => done()); },
    destroy: (error, done) => {
      readable?.destroy();
      writable.destroy();
      done(error);
    },
  });
  readable?.on('data', (data: Buffer) => { if (!stream.push(data)) readable.pause(); });
  readable?.once('end', () => stream.push(null));
  // a client that cannot be spoken to any more is gone
  for (const side of [readable, writable]) side?.on('error', () => stream.destroy());
  readable?.pause();
  return stream;
}
