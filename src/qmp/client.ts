/** A QMP client over a unix socket. Commands go out in order, replies are told by id, events reach whoever subscribed. */
import { connect, type Socket } from 'node:net';
import { BlockError, wrapHostError } from '../base/errors.js';
import { decodeMessage, encodeCommand, LineSplitter, type JsonObject, type QmpEvent, type QmpMessage } from './wire.js';

const GREETING_TIMEOUT_MS = 10_000;
/** QEMU answers at once, or after it has drained its disks; one that hangs must not hang us. */
const REPLY_TIMEOUT_MS = 120_000;

/** QEMU refused a command, or says that it failed. */
export class QmpError extends BlockError {
  /** QEMU's class: `GenericError`, `CommandNotFound`, `DeviceNotFound`, … */
  readonly errorClass: string;
  readonly description: string;

  constructor(command: string, errorClass: string, description: string) {
    super('PEER', `QEMU refused '${command}': ${description}`);
    this.errorClass = errorClass;
    this.description = description;
  }
}

export interface QmpConnectOptions {
  readonly signal?: AbortSignal | undefined;
  /** For the greeting: a QMP socket talks to one client at a time, and lets the next one wait. */
  readonly timeoutMs?: number | undefined;
}

export interface QmpWaitOptions {
  /** Ends waiting only; QEMU still carries the command out. */
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

interface Waiter<T> {
  readonly what: string;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

export class QmpClient {
  readonly path: string;
  readonly #socket: Socket;
  readonly #lines = new LineSplitter();
  readonly #replies = new Map<number, Waiter<unknown>>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  /** Called when the connection is lost. */
  readonly #losses = new Set<(error: BlockError) => void>();
  #greeting: Waiter<string> | null = null;
  #failure: BlockError | null = null;
  #lastId = 0;
  #version = 'unknown';

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.#socket = socket;
    socket.on('data', (data: Uint8Array) => this.#received(data));
    socket.on('error', (error) => this.#fail(wrapHostError(error, `the QMP connection to '${path}' failed`)));
    socket.on('close', () => this.#fail(new BlockError('PROTOCOL', `the QMP connection to '${path}' was closed by its peer`)));
  }

  /** Connects and negotiates; no capability is asked for. */
  static async connect(path: string, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(path, await openSocket(path, options.signal));
    try {
      await client.#negotiate({ signal: options.signal, timeoutMs: options.timeoutMs ?? GREETING_TIMEOUT_MS });
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** QEMU's version, `7.2.22`. */
  get version(): string { return this.#version; }

  /** Resolves with what QEMU returned; throws QmpError where it refused. */
  async execute(command: string, args?: JsonObject, options: QmpWaitOptions = {}): Promise<unknown> {
    return this.#wait<unknown>(`the reply to '${command}'`, { timeoutMs: REPLY_TIMEOUT_MS, ...options }, (waiter) => {
      const id = ++this.#lastId;
      this.#replies.set(id, { ...waiter, what: command });
      this.#socket.write(encodeCommand(command, args, id));
      return () => this.#replies.delete(id);
    });
  }

  /** Every event from now on reaches the listener; the returned function ends that. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first event from now on that fits. */
  async waitEvent(name: string, fits: (data: JsonObject) => boolean = () => true, options: QmpWaitOptions = {}): Promise<QmpEvent> {
    return this.#wait<QmpEvent>(`the event ${name}`, options, (waiter) => this.subscribe((event) => {
      if (event.name === name && fits(event.data)) waiter.resolve(event);
    }));
  }

  /** Waiting calls end with CLOSED. Idempotent. */
  close(): void {
    this.#fail(new BlockError('CLOSED', `the QMP connection to '${this.path}' is closed`));
    this.#socket.destroy();
  }

  async #negotiate(options: QmpWaitOptions): Promise<void> {
    this.#version = await this.#wait<string>('the greeting (another client may hold the connection)', options, (waiter) => {
      this.#greeting = waiter;
      return () => { this.#greeting = null; };
    });
    await this.execute('qmp_capabilities', undefined, options);
  }

  /** Ends with `resolve`, the loss of the connection, the signal, or the timeout; `start` returns what then undoes it. */
  #wait<T>(what: string, options: QmpWaitOptions, start: (waiter: Waiter<T>) => () => void): Promise<T> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise<T>((resolve, reject) => {
      const stopped = (): void => finish(() => reject(new BlockError('CANCELLED', `waiting for ${what} was cancelled`, { cause: options.signal?.reason })));
      const expired = (): void => finish(() => reject(new BlockError('PROTOCOL', `'${this.path}' did not send ${what} within ${options.timeoutMs} ms`)));
      const timer = options.timeoutMs === undefined ? undefined : setTimeout(expired, options.timeoutMs);
      const lost = (error: BlockError): void => finish(() => reject(error));
      let undo = (): void => undefined;
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', stopped);
        this.#losses.delete(lost);
        undo();
        settle();
      };
      if (options.signal?.aborted === true) return stopped();
      options.signal?.addEventListener('abort', stopped, { once: true });
      this.#losses.add(lost);
      undo = start({ what, resolve: (value) => finish(() => resolve(value)), reject: (error) => finish(() => reject(error)) });
    });
  }

  #received(data: Uint8Array): void {
    try {
      for (const line of this.#lines.push(data)) if (line !== '') this.#dispatch(decodeMessage(line));
    } catch (error) {
      this.#fail(wrapHostError(error, `the QMP connection to '${this.path}' failed`));
      this.#socket.destroy();
    }
  }

  #dispatch(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        this.#greeting?.resolve(message.version);
        return;
      case 'event':
        for (const listener of [...this.#listeners]) listener(message.event);
        return;
      case 'reply':
        this.#waiterOf(message.id)?.resolve(message.value);
        return;
      case 'error': {
        const waiter = this.#waiterOf(message.id);
        waiter?.reject(new QmpError(waiter.what, message.errorClass, message.description));
      }
    }
  }

  /** Undefined where the waiter has given up meanwhile. */
  #waiterOf(id: unknown): Waiter<unknown> | undefined {
    return typeof id === 'number' ? this.#replies.get(id) : undefined;
  }

  #fail(error: BlockError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    for (const lost of [...this.#losses]) lost(error);
  }
}

function openSocket(path: string, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const stop = (): void => {
      socket.destroy(new BlockError('CANCELLED', `connecting to QEMU at '${path}' was cancelled`, { cause: signal?.reason }));
    };
    const settle = (): void => {
      signal?.removeEventListener('abort', stop);
      socket.off('error', failed);
    };
    const failed = (error: unknown): void => {
      settle();
      reject(wrapHostError(error, `could not connect to QEMU at '${path}'`));
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      settle();
      resolve(socket);
    });
    if (signal?.aborted === true) stop();
    signal?.addEventListener('abort', stop, { once: true });
  });
}
