/**
 * One monitor client. Requests are carried out in the order in which they came; while one is, no more are read (with out-of-band
 * execution: while eight wait). A client that does not read its replies is not read from; one that lets too many events pile up is
 * let go.
 */
import type { Duplex } from 'node:stream';
import { MiB } from '../base/bytes.js';
import { JsonStreamParser, type JsonItem } from '../qobject/parser.js';
import { printJson } from '../qobject/print.js';
import { isDict, type Json, type JsonDict } from '../qobject/value.js';

/** Requests that wait while reading goes on, once out-of-band execution is enabled. */
const MAX_WAITING = 8;
/** Output that a client has not read. */
const MAX_UNREAD = 64 * MiB;

export interface SessionOptions {
  /** One member per line. */
  readonly pretty?: boolean | undefined;
  /** Is out-of-band execution offered? Default true: the peer offers it on sockets and on standard input. */
  readonly oob?: boolean | undefined;
}

interface SessionHost {
  /** Answers a request, or a fault of the parser; never rejects. */
  answer(item: JsonItem, session: Session): Promise<JsonDict>;
  closed(session: Session): void;
}

export class Session {
  readonly offersOob: boolean;
  /** Null until the client has negotiated: only `qmp_capabilities` is known then, and no event is sent. */
  capabilities: readonly string[] | null = null;
  /** Resolves when the client is gone. */
  readonly ended: Promise<void>;
  readonly #stream: Duplex;
  readonly #host: SessionHost;
  readonly #pretty: boolean;
  readonly #parser: JsonStreamParser;
  readonly #waiting: JsonItem[] = [];
  #working = false;
  #inputEnded = false;
  #gone = false;
  #finished: () => void = () => undefined;

  constructor(stream: Duplex, host: SessionHost, greeting: (session: Session) => JsonDict, options: SessionOptions = {}) {
    this.#stream = stream;
    this.#host = host;
    this.#pretty = options.pretty === true;
    this.offersOob = options.oob !== false;
    this.#parser = new JsonStreamParser((item) => this.#received(item));
    this.ended = new Promise((resolve) => { this.#finished = resolve; });
    stream.on('data', (data: Uint8Array) => {
      this.#parser.feed(data);
      this.#readOrNot();
    });
    stream.on('drain', () => void this.#work());
    stream.on('end', () => {
      this.#inputEnded = true;
      void this.#work();
    });
    // that the client is gone is no fault of anyone's
    stream.on('error', () => this.close());
    stream.on('close', () => this.close());
    this.send(greeting(this));
    // a socket that had to wait for its turn was paused
    stream.resume();
  }

  get negotiated(): boolean { return this.capabilities !== null; }

  send(message: JsonDict): void {
    if (this.#gone) return;
    this.#stream.write(`${printJson(message, { pretty: this.#pretty }).replaceAll('\n', '\r\n')}\r\n`);
    if (this.#stream.writableLength > MAX_UNREAD) this.close();
  }

  /** Ends the connection when all that was sent has been read by the client. */
  end(): void {
    if (this.#gone) return;
    this.#stream.end(() => this.close());
  }

  /** Ends the connection at once. */
  close(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#waiting.length = 0;
    this.#stream.destroy();
    this.#host.closed(this);
    this.#finished();
  }

  #received(item: JsonItem): void {
    if (this.#isOutOfBand(item)) {
      void this.#host.answer(item, this).then((reply) => this.send(reply));
      return;
    }
    this.#waiting.push(item);
    void this.#work();
  }

  #isOutOfBand(item: JsonItem): boolean {
    if (this.capabilities?.includes('oob') !== true || item.error !== undefined || !isDict(item.value)) return false;
    const { value }: { readonly value: Json } = item;
    return isDict(value) && Object.hasOwn(value, 'exec-oob') && !Object.hasOwn(value, 'execute');
  }

  /** Answers what waits; returns at once while that is under way, or while the client does not read. */
  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (!this.#gone && this.#waiting.length > 0 && !this.#stream.writableNeedDrain) {
      const reply = await this.#host.answer(this.#waiting.shift()!, this);
      this.send(reply);
    }
    this.#working = false;
    this.#readOrNot();
    if (this.#inputEnded && this.#waiting.length === 0) this.end();
  }

  #readOrNot(): void {
    const room = this.capabilities?.includes('oob') === true ? MAX_WAITING : 1;
    const busy = this.#waiting.length + (this.#working ? 1 : 0);
    if (busy >= room || this.#stream.writableNeedDrain) this.#stream.pause();
    else this.#stream.resume();
  }
}
