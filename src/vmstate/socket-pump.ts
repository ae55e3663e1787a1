/**
 * Feeds a socket or pipe into a VmStateConsumer: the kernel copies right into the chunk that is written to disk. Where
 * no chunk is free, reading stops, and the peer waits.
 */
import type { OnReadOpts, Socket } from 'node:net';
import { BlockError, wrapHostError } from '../base/errors.js';
import { cancelled, onAbort } from './host-stream.js';
import type { VmStateConsumer } from './writer.js';

/**
 * While reading is stopped there is no chunk to name as the next buffer, and Node asks for one only after a read. So the
 * first read after a stop goes here and is copied; it is no larger than what a promised space has at least.
 */
const PARKING_BYTES = 512;

interface PumpOptions {
  /** Names the stream in messages: `'unix:/run/x'`. */
  readonly name: string;
  readonly signal?: AbortSignal | undefined;
}

/** Makes the socket when the first buffer is known. */
type OpenSocket = (onread: OnReadOpts) => Socket;

/** Resolves with the number of bytes when the peer has ended the stream. The socket is closed in every case. */
export async function pumpSocket(open: OpenSocket, into: VmStateConsumer, options: PumpOptions): Promise<number> {
  const pump = new SocketPump(into, await into.space(), options.name);
  const socket = open({ buffer: () => pump.buffer, callback: (bytes) => pump.received(bytes) });
  const stopWatching = onAbort(options.signal, () => pump.fail(cancelled(`reading the VM state from '${options.name}'`, options.signal!)));
  try {
    return await pump.run(socket);
  } finally {
    stopWatching();
    socket.destroy();
  }
}

class SocketPump {
  buffer: Uint8Array;
  readonly #into: VmStateConsumer;
  readonly #name: string;
  readonly #parking = new Uint8Array(PARKING_BYTES);
  /** Space promised after a stop, into which the parked bytes go. */
  #granted: Uint8Array | null = null;
  #bytes = 0;
  #ended = false;
  #socket: Socket | null = null;
  #failure: BlockError | null = null;
  #settle: (() => void) | null = null;

  constructor(into: VmStateConsumer, space: Uint8Array, name: string) {
    this.#into = into;
    this.#name = name;
    this.buffer = space;
  }

  async run(socket: Socket): Promise<number> {
    this.#socket = socket;
    const fail = (error: unknown): void => this.fail(wrapHostError(error, `could not read the VM state from '${this.#name}'`));
    socket.on('error', fail);
    socket.on('end', () => { this.#ended = true; this.#settle?.(); });
    socket.on('close', () => fail(new BlockError('PROTOCOL', `'${this.#name}' was closed in the middle of the VM state`)));
    if (!this.#ended && this.#failure === null) {
      socket.resume();
      await new Promise<void>((settle) => { this.#settle = settle; });
    }
    if (!this.#ended) throw this.#failure!;
    return this.#bytes;
  }

  fail(error: BlockError): void {
    if (this.#ended) return;
    this.#failure ??= error;
    this.#settle?.();
  }

  /** Node's onread callback; false stops reading. */
  received(bytes: number): boolean {
    if (this.#failure !== null) return false;
    if (this.buffer === this.#parking) this.#granted!.set(this.#parking.subarray(0, bytes));
    this.#into.advance(bytes);
    this.#bytes += bytes;
    const space = this.#into.space();
    if (!(space instanceof Promise)) {
      this.buffer = space;
      return true;
    }
    this.buffer = this.#parking;
    space.then((granted) => {
      this.#granted = granted;
      this.#socket?.resume();
    }, (error: unknown) => this.fail(wrapHostError(error, 'could not store the VM state')));
    return false;
  }
}
