/** Where RAM state goes: a file, a device, a FIFO, standard output, or a unix socket at which QEMU listens. */
import { constants, fsync, write } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { open, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { connect, Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { isatty } from 'node:tty';
import { syncDirectory } from '../base/directory.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import { cancelled, closeDescriptor, kindOf, onAbort, openDescriptor, socketPath, statDescriptor, throwIfAborted } from './host-stream.js';
import type { VmStateReader } from './reader.js';

export interface VmStateOutput {
  readonly name: string;
  /** One call at a time; the memory is the caller's again when the promise settles. */
  write(data: Uint8Array): Promise<void>;
  /** All that was written so far is safe; asked before the disks are reverted. Absent where nothing can be done for it. */
  settle?(): Promise<void>;
  /** Bytes of the end that must not be delivered before the images are closed: a file is not seen before `finish`. */
  readonly heldBack: 0 | 1;
  /** The whole state was written: makes it durable (files) or tells the peer (sockets, pipes), and closes. */
  finish(): Promise<void>;
  /** Closes without the end; a regular file stays as it was before. Idempotent, also after `finish`. */
  abort(): Promise<void>;
}

export interface VmStateOutputOptions {
  readonly signal?: AbortSignal | undefined;
  /** What `-` means. */
  readonly stdout?: number | undefined;
}

/** Opens `-`, `unix:PATH` (connects before it resolves) or a path. */
export async function openVmStateOutput(spec: string, options: VmStateOutputOptions = {}): Promise<VmStateOutput> {
  throwIfAborted(`opening '${spec}'`, options.signal);
  const path = socketPath(spec);
  if (path !== null) return new PipeOutput(spec, await connectTo(spec, path, options.signal), options.signal);
  return spec === '-' ? openStdout(options) : openPath(spec, options.signal);
}

/**
 * Sends the whole state. `beforeLast` runs when everything is read and all but the last byte is delivered: the place to
 * close the image, since a peer may open it as soon as it has that byte. A peer that is gone, or a disk that is full,
 * shows before that. Does not finish the output.
 */
export async function sendState(reader: VmStateReader, output: VmStateOutput, beforeLast: () => Promise<void> = noWork): Promise<void> {
  if (reader.size === 0) await beforeLast();
  for await (const chunk of reader) {
    if (reader.position < reader.size) await output.write(chunk);
    else await sendLast(chunk, output, beforeLast);
  }
}

async function sendLast(chunk: Uint8Array, output: VmStateOutput, beforeLast: () => Promise<void>): Promise<void> {
  const held = chunk.byteLength - output.heldBack;
  await output.write(chunk.subarray(0, held));
  await output.settle?.();
  await beforeLast();
  await output.write(chunk.subarray(held));
}

async function noWork(): Promise<void> {}

async function openStdout(options: VmStateOutputOptions): Promise<VmStateOutput> {
  const fd = options.stdout ?? 1;
  if (isatty(fd)) throw new BlockError('INVALID_ARGUMENT', 'standard output is a terminal, expected a file or a pipe for the VM state');
  const kind = kindOf(await statDescriptor(fd));
  const name = 'standard output';
  if (kind !== 'fifo' && kind !== 'socket') return new DescriptorOutput(name, fd, options.signal, false);
  return new PipeOutput(name, new Socket({ fd, readable: false, writable: true }), options.signal);
}

async function openPath(path: string, signal: AbortSignal | undefined): Promise<VmStateOutput> {
  const stats = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return null;
    throw wrapHostError(error, `could not open '${path}'`);
  });
  const kind = stats === null ? 'file' : kindOf(stats);
  switch (kind) {
    case 'file':
      return FileOutput.create(path, stats?.mode, signal);
    case 'fifo': {
      const fd = await openFifo(path, signal);
      return new PipeOutput(path, new Socket({ fd, readable: false, writable: true }), signal);
    }
    case 'block device':
    case 'character device':
      return new DescriptorOutput(path, await openDescriptor(path, constants.O_WRONLY), signal, true);
    case 'socket':
      throw new BlockError('INVALID_ARGUMENT', `'${path}' is a socket, expected unix:${path}`);
    case 'directory':
      throw new BlockError('INVALID_ARGUMENT', `'${path}' is a directory, expected a file for the VM state`);
  }
}

/** A FIFO opens for writing only when somebody reads it; asking again can be cancelled, a blocking open cannot. */
async function openFifo(path: string, signal: AbortSignal | undefined): Promise<number> {
  for (;;) {
    throwIfAborted(`waiting for a reader of '${path}'`, signal);
    try {
      return await openDescriptor(path, constants.O_WRONLY);
    } catch (error) {
      if (errnoOf(error) !== 'ENXIO') throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function connectTo(name: string, path: string, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // half-open: the peer may close its sending side at once, and still take all that we send
    const socket = connect({ path, allowHalfOpen: true });
    const stopWatching = onAbort(signal, () => socket.destroy(cancelled(`connecting to '${name}'`, signal!)));
    const failed = (error: unknown): void => {
      stopWatching();
      reject(wrapHostError(error, `could not connect to '${name}'`));
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      stopWatching();
      socket.off('error', failed);
      // closing a unix socket with unread bytes would reset the peer's connection
      socket.resume();
      resolve(socket);
    });
  });
}

/** Sockets, FIFOs and pipes. */
class PipeOutput implements VmStateOutput {
  readonly name: string;
  readonly heldBack = 1;
  readonly #socket: Socket;
  readonly #stopWatching: () => void;

  constructor(name: string, socket: Socket, signal: AbortSignal | undefined) {
    this.name = name;
    this.#socket = socket;
    // write and end report errors to their callers; what arrives between two calls is reported by the next one
    socket.on('error', () => undefined);
    this.#stopWatching = onAbort(signal, () => socket.destroy(cancelled(`writing the VM state to '${name}'`, signal!)));
  }

  write(data: Uint8Array): Promise<void> {
    return this.#settle((done) => this.#socket.write(data, done));
  }

  async finish(): Promise<void> {
    try {
      await this.#settle((done) => this.#socket.end(done));
    } finally {
      await this.abort();
    }
  }

  async abort(): Promise<void> {
    this.#stopWatching();
    this.#socket.destroy();
  }

  #settle(start: (done: (error?: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      start((error) => {
        const cause = this.#socket.errored ?? error;
        if (cause === null || cause === undefined) resolve();
        else reject(wrapHostError(cause, `could not write the VM state to '${this.name}'`));
      });
    });
  }
}

/** Devices and a redirected standard output: written from where they stand, as they are. */
class DescriptorOutput implements VmStateOutput {
  readonly name: string;
  readonly heldBack = 0;
  readonly #fd: number;
  readonly #signal: AbortSignal | undefined;
  #closes: boolean;

  constructor(name: string, fd: number, signal: AbortSignal | undefined, closes: boolean) {
    this.name = name;
    this.#fd = fd;
    this.#signal = signal;
    this.#closes = closes;
  }

  async write(data: Uint8Array): Promise<void> {
    throwIfAborted(`writing the VM state to '${this.name}'`, this.#signal);
    for (let done = 0; done < data.byteLength;) {
      done += await new Promise<number>((resolve, reject) => {
        write(this.#fd, data, done, data.byteLength - done, null, (error, count) => {
          if (error === null) resolve(count);
          else reject(wrapHostError(error, `could not write the VM state to '${this.name}'`));
        });
      });
    }
  }

  settle(): Promise<void> {
    return new Promise((resolve, reject) => {
      fsync(this.#fd, (error) => {
        // EINVAL: character devices have nothing to sync
        if (error === null || errnoOf(error) === 'EINVAL') resolve();
        else reject(wrapHostError(error, `could not flush '${this.name}'`));
      });
    });
  }

  async finish(): Promise<void> {
    try {
      await this.settle();
    } finally {
      await this.abort();
    }
  }

  async abort(): Promise<void> {
    if (!this.#closes) return;
    this.#closes = false;
    await closeDescriptor(this.#fd);
  }
}

/** A regular file appears whole or not at all: it is written beside its place and renamed over it. */
class FileOutput implements VmStateOutput {
  readonly name: string;
  readonly heldBack = 0;
  readonly #file: FileHandle;
  readonly #target: string;
  readonly #signal: AbortSignal | undefined;
  #temporary: string | null;
  #position = 0;

  private constructor(name: string, target: string, temporary: string, file: FileHandle, signal: AbortSignal | undefined) {
    this.name = name;
    this.#target = target;
    this.#temporary = temporary;
    this.#file = file;
    this.#signal = signal;
  }

  static async create(path: string, mode: number | undefined, signal: AbortSignal | undefined): Promise<FileOutput> {
    try {
      // a symbolic link stays, and what it points to is replaced
      const target = mode === undefined ? path : await realpath(path);
      const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString('hex')}`);
      const file = await open(temporary, 'wx', mode === undefined ? 0o666 : 0o600);
      if (mode !== undefined) await file.chmod(mode % 0o10000);
      return new FileOutput(path, target, temporary, file, signal);
    } catch (error) {
      throw wrapHostError(error, `could not create '${path}'`);
    }
  }

  async write(data: Uint8Array): Promise<void> {
    throwIfAborted(`writing the VM state to '${this.name}'`, this.#signal);
    try {
      for (let done = 0; done < data.byteLength;) {
        const { bytesWritten } = await this.#file.write(data, done, data.byteLength - done, this.#position);
        done += bytesWritten;
        this.#position += bytesWritten;
      }
    } catch (error) {
      throw wrapHostError(error, `could not write the VM state to '${this.name}'`);
    }
  }

  async settle(): Promise<void> {
    await this.#file.datasync().catch((error: unknown) => { throw wrapHostError(error, `could not flush '${this.name}'`); });
  }

  async finish(): Promise<void> {
    try {
      await this.#file.datasync();
      await this.#file.close();
      await rename(this.#temporary!, this.#target);
      this.#temporary = null;
      await syncDirectory(dirname(this.#target));
    } catch (error) {
      throw wrapHostError(error, `could not complete '${this.name}'`);
    } finally {
      await this.abort();
    }
  }

  async abort(): Promise<void> {
    const temporary = this.#temporary;
    if (temporary === null) return;
    this.#temporary = null;
    await this.#file.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
  }
}
