/** Character devices: what monitors speak through. One client at a time each, as with QEMU's. */
import { createServer, Socket, type AddressInfo, type Server } from 'node:net';
import { fstatSync, readFileSync, rmSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { BlockError, errnoText, errnoOf } from '../base/errors.js';
import { startListening } from '../nbd/listen.js';
import { portNumber } from '../nbd/name.js';
import { listenAddress, type SocketAddress } from './address.js';
import { openFileChardev, openPipeChardev, TerminalChardev } from './chardev-host.js';
import { MuxChardev, SimpleChardev, StreamChardev } from './chardev-stream.js';
import { RingBuffer } from './ring-buffer.js';

export type ChardevConfig =
  | { readonly kind: 'file'; readonly out: string; readonly input: string | null; readonly append: boolean }
  | { readonly kind: 'pipe'; readonly path: string }
  | { readonly kind: 'pty' }
  | { readonly kind: 'mux'; readonly base: string }
  | { readonly kind: 'socket'; readonly address: SocketAddress; readonly server: boolean; readonly wait: boolean; readonly reconnectSeconds: number }
  | { readonly kind: 'stdio'; readonly stream: () => Duplex }
  | { readonly kind: 'null' }
  | { readonly kind: 'ringbuf'; readonly bytes: number };

/** Takes each client as it comes. */
export type Frontend = (stream: Duplex) => void;

export interface Chardev {
  readonly id: string;
  /** How QEMU calls it in `query-chardev`. */
  filename(): string;
  readonly frontend: Frontend | null;
  setFrontend(frontend: Frontend | null): void;
  readonly ring?: RingBuffer;
  /** Of a terminal: the path of its other side. */
  readonly path?: string;
  /** Resolves when the first client is there. */
  waitForClient?(signal: AbortSignal): Promise<void>;
  close(): void;
}

/** `base`: what a mux stands on. */
export async function openChardev(id: string, config: ChardevConfig, base: Chardev | null): Promise<Chardev> {
  switch (config.kind) {
    case 'file': return openFileChardev(id, config.out, config.input, config.append);
    case 'pipe': return openPipeChardev(id, config.path);
    case 'pty': return new TerminalChardev(id);
    case 'mux': return new MuxChardev(id, base!);
    case 'null': return new SimpleChardev(id, 'null');
    case 'ringbuf': return new SimpleChardev(id, 'ringbuf', new RingBuffer(config.bytes));
    case 'stdio': return new StreamChardev(id, 'stdio', config.stream());
    case 'socket': return config.server ? SocketServer.listen(id, config.address) : SocketClient.connect(id, config.address, config.reconnectSeconds);
  }
}

/** Serves one client; the next ones wait until that one has gone. */
class SocketServer implements Chardev {
  readonly id: string;
  frontend: Frontend | null = null;
  readonly #server: Server;
  readonly #address: SocketAddress;
  readonly #waiting: Socket[] = [];
  #client: Socket | null = null;
  #onClient: () => void = () => undefined;

  private constructor(id: string, server: Server, address: SocketAddress) {
    this.id = id;
    this.#server = server;
    this.#address = address;
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      this.#waiting.push(socket);
      this.#next();
    });
  }

  static async listen(id: string, address: SocketAddress): Promise<SocketServer> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true });
    const chardev = new SocketServer(id, server, address);
    await startListening(server, listenAddress(address));
    return chardev;
  }

  filename(): string {
    const bound = this.#server.address();
    if (this.#client === null) return `disconnected:${nameOf(this.#address, bound)},server=on`;
    return connectedName(this.#client, typeof bound === 'string' ? bound : this.#inheritedPath(), ',server=on');
  }

  /** Of a Unix socket that came with the process only the kernel knows the path. */
  #inheritedPath(): string {
    if (this.#address.type !== 'fd') return '';
    const inode = String(fstatSync(this.#address.fd).ino);
    const line = readFileSync('/proc/net/unix', 'utf8').split('\n').map((text) => text.trim().split(/\s+/)).find((fields) => fields[6] === inode);
    return line?.slice(7).join(' ') ?? '';
  }

  setFrontend(frontend: Frontend | null): void {
    this.frontend = frontend;
    this.#serve();
  }

  waitForClient(signal: AbortSignal): Promise<void> {
    if (this.#client !== null || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onClient = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  close(): void {
    this.#server.close();
    for (const socket of [...this.#waiting.splice(0), ...this.#client === null ? [] : [this.#client]]) socket.destroy();
    if (this.#address.type === 'unix' && !isAbstract(this.#address.path)) rmSync(this.#address.path, { force: true });
  }

  #next(): void {
    const next = this.#client === null ? this.#waiting.shift() : undefined;
    if (next === undefined) return;
    this.#client = next;
    next.once('close', () => {
      this.#client = null;
      this.#next();
    });
    this.#onClient();
    this.#serve();
  }

  /** Clients are accepted paused: nothing they say is lost before somebody listens. */
  #serve(): void {
    if (this.#client === null || this.frontend === null) return;
    this.frontend(this.#client);
    this.#client.resume();
  }
}

/** Connects when it is made, and again after `reconnectSeconds` where that is not 0. */
class SocketClient implements Chardev {
  readonly id: string;
  frontend: Frontend | null = null;
  readonly #address: SocketAddress;
  readonly #reconnectSeconds: number;
  #client: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  private constructor(id: string, address: SocketAddress, reconnectSeconds: number) {
    this.id = id;
    this.#address = address;
    this.#reconnectSeconds = reconnectSeconds;
  }

  static async connect(id: string, address: SocketAddress, reconnectSeconds: number): Promise<SocketClient> {
    const chardev = new SocketClient(id, address, reconnectSeconds);
    if (reconnectSeconds > 0) void chardev.#connect().catch(() => chardev.#later());
    else await chardev.#connect();
    return chardev;
  }

  filename(): string {
    return this.#client === null ? `disconnected:${nameOf(this.#address, null)}` : connectedName(this.#client, '', '');
  }

  setFrontend(frontend: Frontend | null): void {
    this.frontend = frontend;
    if (this.#client !== null) frontend?.(this.#client);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#client?.destroy();
  }

  #later(): void {
    if (this.#closed || this.#reconnectSeconds === 0) return;
    this.#timer = setTimeout(() => void this.#connect().catch(() => this.#later()), this.#reconnectSeconds * 1000);
    this.#timer.unref();
  }

  async #connect(): Promise<void> {
    const client = await connectTo(this.#address);
    client.on('error', () => undefined);
    client.once('close', () => {
      this.#client = null;
      this.#later();
    });
    this.#client = client;
    this.frontend?.(client);
  }
}

function connectTo(address: SocketAddress): Promise<Socket> {
  if (address.type === 'fd') return Promise.resolve(new Socket({ fd: address.fd, allowHalfOpen: true }));
  const where = address.type === 'unix' ? { path: address.path } : { host: address.host, port: portNumber(address) };
  const name = address.type === 'unix' ? address.path : `${address.host}:${address.port}`;
  return new Promise((resolve, reject) => {
    const socket = new Socket({ allowHalfOpen: true });
    const failed = (error: Error): void => reject(
      new BlockError('IO', `Failed to connect to '${name}': ${errnoText(errnoOf(error))}`, { errno: errnoOf(error), cause: error }));
    socket.once('error', failed);
    socket.connect(where, () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}

function nameOf(address: SocketAddress, bound: AddressInfo | string | null): string {
  switch (address.type) {
    case 'unix': return isAbstract(address.path) ? `unix:${address.path.slice(1)},abstract=on` : `unix:${address.path}`;
    case 'fd': return `fd:${address.fd}`;
    case 'inet': return `tcp:${hostText(address.host)}:${typeof bound === 'object' && bound !== null ? bound.port : address.port}`;
  }
}

/** By its own two ends, whatever the device was made of. `local`: the path of a Unix socket that listens; others have none. */
function connectedName(client: Socket, local: string, role: string): string {
  const { localAddress, localPort, remoteAddress = '', remotePort = 0 } = client;
  if (localAddress === undefined) return `unix:${isAbstract(local) ? '' : local}${role}`;
  return `tcp:${hostText(localAddress)}:${localPort ?? 0}${role} <-> ${hostText(remoteAddress)}:${remotePort}`;
}

function isAbstract(path: string): boolean {
  return path.startsWith('\0');
}

function hostText(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
