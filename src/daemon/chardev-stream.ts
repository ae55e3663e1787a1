/** Character devices without a host object of their own. */
import type { Duplex } from 'node:stream';
import type { Chardev, Frontend } from './chardev.js';
import type { RingBuffer } from './ring-buffer.js';

/** No client ever comes. */
export class SimpleChardev implements Chardev {
  readonly id: string;
  readonly ring?: RingBuffer;
  frontend: Frontend | null = null;
  readonly #kind: string;

  constructor(id: string, kind: string, ring?: RingBuffer) {
    this.id = id;
    this.#kind = kind;
    if (ring !== undefined) this.ring = ring;
  }

  filename(): string { return this.#kind; }
  setFrontend(frontend: Frontend | null): void { this.frontend = frontend; }
  close(): void { /* nothing is open */ }
}

/** One client, there from the start. */
export class StreamChardev implements Chardev {
  readonly id: string;
  frontend: Frontend | null = null;
  readonly #kind: string;
  readonly #stream: Duplex;

  constructor(id: string, kind: string, stream: Duplex) {
    this.id = id;
    this.#kind = kind;
    this.#stream = stream;
    // that the other end is gone, or this one closed, is no fault of anyone's
    stream.on('error', () => undefined);
  }

  filename(): string { return this.#kind; }

  setFrontend(frontend: Frontend | null): void {
    this.frontend = frontend;
    frontend?.(this.#stream);
  }

  close(): void { this.#stream.destroy(); }
}

/** Stands on another one, whose clients are then its own. QEMU lets several users in by turns; here there is one. */
export class MuxChardev implements Chardev {
  readonly id: string;
  frontend: Frontend | null = null;
  readonly #base: Chardev;

  constructor(id: string, base: Chardev) {
    this.id = id;
    this.#base = base;
  }

  filename(): string { return 'mux'; }

  setFrontend(frontend: Frontend | null): void {
    this.frontend = frontend;
    this.#base.setFrontend(frontend);
  }

  close(): void { /* the base is closed by itself */ }
}
