/**
 * A monitor on a listening socket, as QEMU's socket chardev: one client at a time, the next ones wait, without a greeting, until the
 * former has gone.
 */
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { wrapHostError } from '../base/errors.js';
import type { QmpServer } from './server.js';
import type { SessionOptions } from './session.js';

/** Clients that wait; one more is turned away. */
const MAX_WAITING = 64;

export class MonitorListener {
  readonly #server: QmpServer;
  readonly #options: SessionOptions;
  readonly #listener: Server;
  readonly #waiting = new Set<Socket>();
  #busy = false;

  private constructor(server: QmpServer, options: SessionOptions) {
    this.#server = server;
    this.#options = options;
    // a client may close its side and still read its replies
    this.#listener = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => this.#connected(socket));
  }

  /** `where`: a path, a host and port, or `{fd}` of a socket that listens already. */
  static async open(server: QmpServer, where: ListenOptions, options: SessionOptions = {}): Promise<MonitorListener> {
    const listener = new MonitorListener(server, options);
    await new Promise<void>((resolve, reject) => {
      listener.#listener.once('error', (error) => reject(wrapHostError(error, 'a monitor cannot listen')));
      listener.#listener.listen(where, resolve);
    });
    return listener;
  }

  /** Takes no new clients; those at hand are the server's to end. */
  async close(): Promise<void> {
    for (const socket of this.#waiting) socket.destroy();
    const closed = new Promise<void>((resolve) => { this.#listener.close(() => resolve()); });
    // Node waits for the connections too
    await (this.#busy ? Promise.resolve() : closed);
  }

  #connected(socket: Socket): void {
    if (this.#waiting.size >= MAX_WAITING) {
      socket.destroy();
      return;
    }
    this.#waiting.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#waiting.delete(socket));
    this.#next();
  }

  #next(): void {
    const [socket] = this.#waiting;
    if (this.#busy || socket === undefined) return;
    this.#waiting.delete(socket);
    this.#busy = true;
    void this.#server.attach(socket, this.#options).ended.then(() => {
      this.#busy = false;
      this.#next();
    });
  }
}
