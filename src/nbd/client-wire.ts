/** The negotiation's view of a socket: exact reads, one deadline for all of it, and no more in memory than one answer needs. */
import { KiB } from '../base/bytes.js';
import { systemClock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import type { ClientSocket } from './client-socket.js';

/** What may wait unread: no answer of a negotiation is longer. */
const BUFFERED = 64 * KiB;

export class HandshakeWire {
  readonly socket: ClientSocket;
  #buffered: Buffer[] = [];
  #bytes = 0;
  #paused = false;
  #failure: BlockError | null = null;
  #wake: (() => void) | null = null;
  readonly #timer: NodeJS.Timeout;
  readonly #expires: number;

  constructor(socket: ClientSocket, timeoutMs: number) {
    this.socket = socket;
    this.#expires = systemClock.monotonicMs() + timeoutMs;
    this.#timer = setTimeout(() => socket.destroy(new BlockError('PROTOCOL',
      `'${socket.name}' did not finish the NBD negotiation within ${timeoutMs} ms`, { node: socket.name, errno: 'ETIMEDOUT' })), timeoutMs);
    this.#attach();
  }

  get msLeft(): number { return Math.max(1, this.#expires - systemClock.monotonicMs()); }
  /** Bytes that came and were not read. */
  get unread(): number { return this.#bytes; }

  /** The next `bytes` bytes. */
  async read(bytes: number): Promise<Buffer> {
    while (this.#bytes < bytes) {
      if (this.#failure !== null) throw this.#failure;
      this.#unpause();
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
    const all = this.#buffered.length === 1 ? this.#buffered[0]! : Buffer.concat(this.#buffered);
    this.#buffered = all.byteLength > bytes ? [all.subarray(bytes)] : [];
    this.#bytes -= bytes;
    return all.subarray(0, bytes);
  }

  /** Reads and forgets. */
  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) {
      const part = Math.min(left, 4096);
      await this.read(part);
      left -= part;
    }
  }

  send(bytes: Uint8Array): void {
    this.socket.send(bytes);
  }

  /** The end of the negotiation: the next owner of the socket gets what follows. */
  release(): void {
    clearTimeout(this.#timer);
    this.socket.onData = () => {};
    this.socket.onEnd = () => {};
    this.#unpause();
  }

  #attach(): void {
    this.socket.onData = (piece) => {
      this.#buffered.push(Buffer.from(piece));
      this.#bytes += piece.byteLength;
      if (this.#bytes > BUFFERED && !this.#paused) {
        this.#paused = true;
        this.socket.pause();
      }
      this.#notify();
    };
    this.socket.onEnd = (error) => {
      this.#failure = error;
      this.#notify();
    };
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  #unpause(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.socket.resume();
  }
}
