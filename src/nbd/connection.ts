/** One client's connection: its socket, the phase it is in, and how it ends. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import { ioStep } from '../base/polling.js';
import { moveConnection } from './direct-socket.js';
import type { ClientFacts, ExportUser, ServedExport } from './export.js';
import { ServerHandshake, type HandshakeContext, type Negotiated, type Outcome } from './handshake-server.js';
import type { MemoryShare } from './memory-share.js';
import { greeting } from './option-replies.js';
import { ReplyWriter } from './replies.js';
import type { Watched } from './stall-watch.js';
import { startTlsServer, type TlsCredentials } from './tls.js';
import { Transmission } from './transmission.js';

/** A shorter rest of a payload is not worth a read of its own. */
const DIRECT_BYTES = 32 * 1024;

interface ConnectionOptions {
  readonly socket: Socket;
  readonly memory: MemoryShare;
  /** What sockets read into, all connections of a server in turn. */
  readonly inbox: Uint8Array;
  readonly clock: Clock;
  readonly tls: TlsCredentials | null;
  /** Asked about the subject of a client's certificate. */
  readonly authorize: ((subject: string) => boolean) | null;
  readonly handshakeTimeoutMs: number;
  readonly maxInFlight: number;
  find(name: Buffer): ServedExport | undefined;
  list(): Iterable<ServedExport>;
  /** Why a client was turned away or lost; for a log. */
  onProblem(why: string): void;
  /** Nothing of it is left. `negotiated` tells whether it ever reached the transmission phase. */
  onClosed(connection: Connection, negotiated: boolean): void;
}

export class Connection implements ExportUser, Watched {
  readonly #options: ConnectionOptions;
  #socket: Socket;
  #handshake: ServerHandshake | null;
  #transmission: Transmission | null = null;
  #replies: ReplyWriter | null = null;
  /** Bytes received and not yet taken. */
  #pending: Uint8Array | null = null;
  #served: ServedExport | null = null;
  /** The client has sent its last byte. */
  #eof = false;
  /** No bytes are taken any more. */
  #finished = false;
  #socketClosed = false;
  #gone = false;
  #chunks = 0;
  readonly #peer: string;
  #secured = false;
  readonly #timeout = new AbortController();
  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#peer = peerOf(options.socket);
    this.#socket = (options.tls === null ? this.#move(options.socket) : null) ?? options.socket;
    this.#closed = new Promise((resolve) => { this.#resolveClosed = resolve; });
    this.#handshake = new ServerHandshake(this.#contextOf(options.tls === null ? 'none' : 'required'));
    this.#attach(this.#socket);
    this.#socket.resume();
    this.#socket.write(greeting());
    if (options.handshakeTimeoutMs > 0) void this.#limitHandshake();
  }

  get facts(): ClientFacts { return { peer: this.#peer, tls: this.#secured }; }

  /** Ends it at once, whatever is under way. */
  drop(): Promise<void> {
    this.#socket.destroy();
    return this.#closed;
  }

  /** Takes no more requests, answers those it has, and ends. */
  close(): Promise<void> {
    if (this.#transmission === null) return this.drop();
    this.#finish(null);
    return this.#closed;
  }

  get starved(): boolean { return this.#options.memory.waitsForPool; }
  get waitsForClient(): boolean { return this.#transmission?.receiving === true || this.#replies?.idle === false; }
  get transfers(): number { return this.#chunks + (this.#replies?.writes ?? 0); }

  evict(): void {
    this.#options.onProblem('the client held buffers that others waited for, and did nothing');
    this.#socket.destroy();
  }

  #contextOf(tls: HandshakeContext['tls']): HandshakeContext {
    return { tls, find: (name) => this.#options.find(name), list: () => this.#options.list() };
  }

  async #limitHandshake(): Promise<void> {
    await this.#options.clock.sleep(this.#options.handshakeTimeoutMs, this.#timeout.signal);
    if (this.#transmission !== null || this.#socketClosed) return;
    this.#options.onProblem('the client did not finish its negotiation in time');
    this.#socket.destroy();
  }

  #attach(socket: Socket): void {
    socket.on('data', this.#onData); // where the connection was moved, there are none
    socket.on('end', this.#onEnd);
    socket.on('error', this.#onError);
    socket.on('drain', this.#onDrain);
    socket.once('close', this.#onSocketClosed);
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.#chunks++;
    this.#pending = this.#pending === null ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#advance();
  };

  /** Small things go to the shared inbox, the rest of a large payload to where it is wanted. */
  #move(socket: Socket): Socket | null {
    return moveConnection(socket, {
      next: () => this.#transmission?.payloadRoom(DIRECT_BYTES) ?? this.#options.inbox,
      received: (bytes, memory) => {
        if (memory === this.#options.inbox) {
          this.#onData(memory.subarray(0, bytes));
          // others will read into the inbox before this is taken
          if (this.#pending !== null) this.#pending = this.#pending.slice();
        } else {
          this.#chunks++;
          this.#transmission!.takeDirect(bytes);
          this.#advance();
        }
      },
    });
  }

  readonly #onDrain = (): void => {
    if (this.#transmission === null) this.#advance();
  };

  readonly #onEnd = (): void => {
    this.#eof = true;
    this.#advance();
  };

  readonly #onError = (error: Error): void => {
    this.#options.onProblem(`the connection failed: ${messageOf(error)}`);
  };

  readonly #onSocketClosed = (): void => {
    this.#socketClosed = true;
    this.#finished = true;
    this.#pending = null;
    this.#timeout.abort();
    this.#replies?.end();
    this.#transmission?.close();
    this.#leave();
  };

  /** Gives what was received to the phase at hand, and stops the socket while that takes no more. */
  #advance(): void {
    while (this.#pending !== null && !this.#finished && !this.#blocked()) {
      const bytes = this.#pending;
      const taken = this.#transmission === null ? this.#negotiate(bytes) : this.#take(this.#transmission, bytes);
      // what is left may have been thrown away meanwhile
      if (this.#pending !== null) this.#pending = taken === bytes.byteLength ? null : bytes.subarray(taken);
      const ended = this.#transmission?.ended ?? null;
      if (ended !== null) return this.#finish(ended.why);
    }
    if (this.#finished) return;
    const blocked = this.#blocked();
    if (this.#eof && this.#pending === null && !blocked) return this.#finish(null);
    if (blocked === this.#socket.isPaused()) return;
    if (blocked) this.#socket.pause();
    else this.#socket.resume();
  }

  #take(transmission: Transmission, bytes: Uint8Array): number {
    const replies = this.#replies!;
    ioStep();
    replies.gather();
    const taken = transmission.receive(bytes, 0);
    replies.sendGathered();
    return taken;
  }

  #blocked(): boolean {
    return this.#transmission === null ? this.#handshake === null || this.#socket.writableNeedDrain : this.#transmission.blocked;
  }

  /** Returns how many bytes were taken. */
  #negotiate(bytes: Uint8Array): number {
    const handshake = this.#handshake!;
    const taken = handshake.receive(bytes, 0);
    if (handshake.replies.length > 0) this.#socket.write(Buffer.concat(handshake.replies.splice(0)));
    if (handshake.outcome !== null) this.#act(handshake.outcome, bytes.byteLength - taken);
    return taken;
  }

  #act(outcome: Outcome, left: number): void {
    const handshake = this.#handshake!;
    this.#handshake = null;
    switch (outcome.kind) {
      case 'transmission':
        return this.#transmit(outcome.negotiated);
      case 'abort':
        return this.#finish(null);
      case 'drop':
        return this.#finish(`option negotiation failed: ${outcome.why}`);
      case 'start-tls':
        return void this.#startTls(handshake, left);
    }
  }

  #transmit(negotiated: Negotiated): void {
    this.#timeout.abort();
    this.#served = negotiated.export;
    this.#replies = new ReplyWriter(this.#socket);
    const { memory, maxInFlight } = this.#options;
    this.#transmission = new Transmission({ peer: this.#peer, negotiated, replies: this.#replies, memory, maxInFlight, onProgress: () => this.#progress() });
    negotiated.export.join(this);
  }

  /** What came before TLS may have been put there by anyone, so none of it is ever looked at. */
  async #startTls(handshake: ServerHandshake, left: number): Promise<void> {
    const plain = this.#socket;
    this.#pending = null;
    if (left > 0 || plain.readableLength > 0) {
      this.#options.onProblem('the client sent plain bytes after it asked for TLS');
      plain.destroy();
      return;
    }
    plain.removeAllListeners('data').removeAllListeners('end').removeAllListeners('drain');
    try {
      const session = await startTlsServer(plain, this.#options.tls!, this.#options.handshakeTimeoutMs);
      this.#authorize(session);
      handshake.secured();
      this.#secured = true;
      this.#handshake = handshake;
      this.#socket = session;
      session.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError).on('drain', this.#onDrain);
      session.once('close', () => plain.destroy());
      if (this.#socketClosed) session.destroy();
    } catch (error) {
      this.#options.onProblem(messageOf(error));
      plain.destroy();
    }
  }

  #authorize(session: TLSSocket): void {
    const { authorize, tls } = this.#options;
    if (authorize === null || tls?.kind !== 'x509' || !tls.verifyPeer) return;
    const subject = subjectOf(session.getPeerX509Certificate()?.subject ?? '');
    if (authorize(subject)) return;
    session.destroy();
    throw new BlockError('PEER', `TLS x509 authz check for ${subject} is denied`);
  }

  /** A request has ended, or memory has come. */
  #progress(): void {
    if (this.#finished) this.#leave();
    else if (this.#pending !== null || this.#eof || this.#socket.isPaused()) this.#advance();
  }

  /** Takes no more bytes; the socket ends when what is under way has been answered. */
  #finish(why: string | null): void {
    if (why !== null) this.#options.onProblem(why);
    this.#finished = true;
    this.#pending = null;
    this.#transmission?.end();
    this.#leave();
  }

  #leave(): void {
    if ((this.#transmission?.inFlight ?? 0) > 0) return;
    if (!this.#socketClosed) {
      this.#socket.destroySoon();
      return;
    }
    if (this.#gone) return;
    this.#gone = true;
    this.#served?.leave(this);
    this.#options.onClosed(this, this.#served !== null);
    this.#resolveClosed();
  }
}

/** Node's lines in the one line that GnuTLS, and so QEMU's authz objects, make of them: `C=GB,O=Example,CN=host`. */
function subjectOf(lines: string): string {
  return lines.split('\n').map((line) => line.replace(/^emailAddress=/, 'EMAIL=')).join(',');
}

function peerOf({ remoteAddress: address, remotePort: port }: Socket): string {
  if (address === undefined) return 'unix';
  return `${address.includes(':') ? `[${address}]` : address}:${port ?? 0}`;
}
