/** Where RAM state comes from: a file, a device, a FIFO, standard input, or a unix socket that QEMU connects to. */
import { constants, read } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { connect, createServer, Socket, type OnReadOpts, type Server, type SocketConstructorOpts } from 'node:net';
import { isatty } from 'node:tty';
import { dirname, resolve as absolute } from 'node:path';
import { assert } from '../base/assert.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import { cancelled, closeDescriptor, kindOf, onAbort, openDescriptor, socketPath, statDescriptor, throwIfAborted } from './host-stream.js';
import { pumpSocket } from './socket-pump.js';
import type { VmStateConsumer } from './writer.js';

const PARALLEL_READ = 256 * 1024;

export interface VmStateInput {
  readonly name: string;
  /** Bytes it will deliver, where that is known beforehand. */
  readonly size: number | null;
  /** Feeds the whole stream; resolves with its length at its end. Whether the stream is complete is not judged here. */
  pump(into: VmStateConsumer): Promise<number>;
  /** Call it when `pump` settled, or instead of it; a socket's pump it also ends. Idempotent. */
  close(): Promise<void>;
}

export interface VmStateInputOptions {
  readonly signal?: AbortSignal | undefined;
  /** What `-` means. */
  readonly stdin?: number | undefined;
}

/** Opens `-`, `unix:PATH` (listens before it resolves) or a path. */
export async function openVmStateInput(spec: string, options: VmStateInputOptions = {}): Promise<VmStateInput> {
  throwIfAborted(`opening '${spec}'`, options.signal);
  const path = socketPath(spec);
  if (path !== null) return SocketInput.listen(path, options.signal);
  return spec === '-' ? openStdin(options) : openPath(spec, options.signal);
}

async function openStdin(options: VmStateInputOptions): Promise<VmStateInput> {
  const fd = options.stdin ?? 0;
  if (isatty(fd)) throw new BlockError('INVALID_ARGUMENT', 'standard input is a terminal, expected VM state from a file or a pipe');
  const kind = kindOf(await statDescriptor(fd));
  if (kind === 'fifo' || kind === 'socket') return new PipeInput('standard input', fd, options.signal);
  return new FileInput('standard input', fd, null, options.signal, false);
}

async function openPath(path: string, signal: AbortSignal | undefined): Promise<VmStateInput> {
  const fd = await openDescriptor(path, constants.O_RDONLY);
  const stats = await statDescriptor(fd);
  const kind = kindOf(stats);
  if (kind === 'fifo') return new PipeInput(path, fd, signal);
  if (kind !== 'directory') return new FileInput(path, fd, kind === 'file' ? stats.size : null, signal, true);
  await closeDescriptor(fd);
  throw new BlockError('INVALID_ARGUMENT', `'${path}' is a directory, expected a file with VM state`);
}

/** Files and devices: each read lands in the chunk that is written to disk. */
class FileInput implements VmStateInput {
  readonly name: string;
  readonly size: number | null;
  readonly #fd: number;
  readonly #signal: AbortSignal | undefined;
  #closes: boolean;

  constructor(name: string, fd: number, size: number | null, signal: AbortSignal | undefined, closes: boolean) {
    this.name = name;
    this.size = size;
    this.#fd = fd;
    this.#signal = signal;
    this.#closes = closes;
  }

  async pump(into: VmStateConsumer): Promise<number> {
    for (let total = 0; ;) {
      throwIfAborted(`reading the VM state from '${this.name}'`, this.#signal);
      const count = await this.#fill(await into.space(), total);
      if (count === 0) return total;
      into.advance(count);
      total += count;
    }
  }

  /** A file that is ours alone is read by two threads at once: copying out of the page cache is what takes the time. */
  async #fill(buffer: Uint8Array, position: number): Promise<number> {
    if (this.size === null) return this.#read(buffer, null);
    if (buffer.byteLength < PARALLEL_READ) return this.#read(buffer, position);
    const half = Math.floor(buffer.byteLength / 2);
    const [first, second] = await Promise.all([this.#read(buffer.subarray(0, half), position), this.#read(buffer.subarray(half), position + half)]);
    return first < half ? first : half + second;
  }

  /** Without a position at the descriptor's own: standard input may be a file that a shell has read a part of. */
  #read(buffer: Uint8Array, position: number | null): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#fd, buffer, 0, buffer.byteLength, position, (error, count) => {
        if (error === null) resolve(count);
        else reject(wrapHostError(error, `could not read the VM state from '${this.name}'`));
      });
    });
  }

  async close(): Promise<void> {
    if (!this.#closes) return;
    this.#closes = false;
    await closeDescriptor(this.#fd);
  }
}

/** FIFOs, pipes and socket pairs. */
class PipeInput implements VmStateInput {
  readonly name: string;
  readonly size = null;
  readonly #signal: AbortSignal | undefined;
  /** Null once a socket owns it. */
  #fd: number | null;

  constructor(name: string, fd: number, signal: AbortSignal | undefined) {
    this.name = name;
    this.#fd = fd;
    this.#signal = signal;
  }

  pump(into: VmStateConsumer): Promise<number> {
    return pumpSocket((onread) => this.#open(onread), into, { name: this.name, signal: this.#signal });
  }

  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = null;
    if (fd !== null) await closeDescriptor(fd);
  }

  #open(onread: OnReadOpts): Socket {
    const fd = this.#fd;
    assert(fd !== null, 'a pipe is pumped once');
    this.#fd = null;
    return newSocket({ fd, readable: true, writable: false, onread });
  }
}

/** Listens for one connection; the socket file is gone as soon as that one came. */
export class SocketInput implements VmStateInput {
  readonly name: string;
  readonly path: string;
  readonly size = null;
  readonly #server: Server;
  /** Closing ends a pump that waits or runs. */
  readonly #closer = new AbortController();
  readonly #signal: AbortSignal;
  readonly #connection: Promise<Socket>;
  /** Accepted, and not yet pumped. */
  #accepted: Socket | null = null;

  private constructor(path: string, server: Server, signal: AbortSignal | undefined) {
    this.name = `unix:${path}`;
    this.path = path;
    this.#server = server;
    this.#signal = signal === undefined ? this.#closer.signal : AbortSignal.any([signal, this.#closer.signal]);
    server.maxConnections = 1;
    this.#connection = new Promise((resolve) => {
      server.once('connection', (connection) => {
        this.#accepted = connection;
        server.close();
        resolve(connection);
      });
    });
  }

  static async listen(path: string, signal?: AbortSignal): Promise<SocketInput> {
    await removeStaleSocket(path);
    // a paused connection has read nothing yet, so its handle can move to a socket that reads into our memory
    const server = createServer({ pauseOnConnect: true });
    const refused = await new Promise<unknown>((settle) => {
      server.once('error', settle);
      server.listen({ path }, () => settle(null));
    });
    if (refused !== null) throw await listenError(path, refused);
    return new SocketInput(path, server, signal);
  }

  /** Nobody has connected so far. */
  get waiting(): boolean { return this.#server.listening; }

  async pump(into: VmStateConsumer): Promise<number> {
    const connection = await this.#connected();
    const open = (onread: OnReadOpts): Socket => {
      this.#accepted = null;
      return takeOver(connection, onread);
    };
    return pumpSocket(open, into, { name: this.name, signal: this.#signal });
  }

  async close(): Promise<void> {
    this.#closer.abort();
    this.#accepted?.destroy();
    this.#accepted = null;
    if (this.#server.listening) await new Promise<void>((resolve) => { this.#server.close(() => resolve()); });
  }

  async #connected(): Promise<Socket> {
    let stopWatching = (): void => undefined;
    const aborted = new Promise<never>((_, reject) => {
      stopWatching = onAbort(this.#signal, () => reject(cancelled(`waiting for a connection at '${this.name}'`, this.#signal)));
    });
    try {
      return await Promise.race([this.#connection, aborted]);
    } finally {
      stopWatching();
    }
  }
}

interface SocketOptions extends SocketConstructorOpts {
  readonly onread: OnReadOpts;
  readonly handle?: object;
}

function newSocket(options: SocketOptions): Socket {
  return new Socket(options);
}

/**
 * An accepted connection cannot be told to read into given memory, so its handle moves to a socket that can. That saves
 * two thirds of the processor time that the same bytes take as a stream of Buffers.
 */
function takeOver(connection: Socket, onread: OnReadOpts): Socket {
  const holder = connection as unknown as { _handle: unknown };
  const handle = holder._handle;
  assert(typeof handle === 'object' && handle !== null, 'an accepted connection has a handle');
  holder._handle = null;
  return newSocket({ handle, onread });
}

/** libuv says EACCES where the folder is missing. */
async function listenError(path: string, error: unknown): Promise<BlockError> {
  const missing = errnoOf(error) === 'EACCES' ? await stat(dirname(path)).then(() => null, (why: unknown) => why) : null;
  return wrapHostError(missing ?? error, `could not listen at '${path}'`);
}

/** A socket that a killed program left behind is removed; anything else stays and is an error. */
async function removeStaleSocket(path: string): Promise<void> {
  const stats = await stat(path).catch(() => null);
  if (stats === null) return;
  if (!stats.isSocket()) throw new BlockError('EXISTS', `'${path}' exists and is no socket, so nothing can listen there`);
  if (await isBound(path) || await answers(path)) throw new BlockError('BUSY', `another program already listens at '${path}'`);
  await rm(path, { force: true });
}

/** Asks the kernel, since a connection made only to find out would use up a listener that takes just one. */
async function isBound(path: string): Promise<boolean> {
  const table = await readFile('/proc/net/unix', 'latin1').catch(() => '');
  const names = [path, absolute(path)].map((name) => Buffer.from(name).toString('latin1'));
  return table.split('\n').some((line) => names.some((name) => line.endsWith(` ${name}`)));
}

/** The kernel's list does not show a listener in another network namespace. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => { probe.destroy(); resolve(true); });
    probe.once('error', (error) => resolve(errnoOf(error) !== 'ECONNREFUSED' && errnoOf(error) !== 'ENOENT'));
  });
}
