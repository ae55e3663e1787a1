/** `trace serve`: the page of a trace and its answers over HTTP, for whoever knows the token in the address. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BlockError, messageOf, wrapHostError } from '../base/errors.js';
import type { LoadingState } from './answers.js';
import type { LoadedTrace } from './load.js';
import { answer, parseQuestion } from './questions.js';
import { contentPolicy } from './self-contained.js';
import { encode } from './wire.js';

export interface TraceServerOptions {
  /** The page, as the build made it. */
  readonly page: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Begins when the server listens; the page shows what it tells of its progress. A trace that goes on tells of itself again and again. */
  readonly load: (progress: (state: Pick<LoadingState, 'done' | 'total' | 'unit'>) => void, renew: (trace: LoadedTrace) => void) => Promise<LoadedTrace>;
}

/** Of a question; longer ones are refused. */
const MAX_QUESTION_BYTES = 256 * 1024;
const TOKEN_BYTES = 24;
/** Views that are kept, of less than a megabyte each. */
const MAX_REMEMBERED = 16;

export class TraceServer {
  readonly #server: Server;
  readonly #token = randomBytes(TOKEN_BYTES).toString('base64url');
  readonly #options: TraceServerOptions;
  readonly #policy: string;
  #state: LoadingState = { phase: 'reading', done: 0, total: null, unit: 'records' };
  #trace: LoadedTrace | undefined;
  /** Views by their questions, the oldest first. */
  readonly #answered = new Map<string, Uint8Array>();
  #loading: Promise<void> = Promise.resolve();

  private constructor(options: TraceServerOptions) {
    this.#options = options;
    this.#policy = `${contentPolicy(options.page)}; connect-src 'self'; frame-ancestors 'none'`;
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error: unknown) => refuse(response, error instanceof BlockError ? 400 : 500, messageOf(error)));
    });
    // a client that says nothing holds a socket and no more
    this.#server.requestTimeout = 30_000;
  }

  /** BlockError IO: the address cannot be listened on. */
  static async start(options: TraceServerOptions): Promise<TraceServer> {
    const server = new TraceServer(options);
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', (error) => reject(wrapHostError(error, `cannot listen on ${options.host}:${options.port}`)));
      server.#server.listen(options.port, options.host, () => resolve());
    });
    server.#loading = server.#load();
    return server;
  }

  /** Where the page is: with the token. */
  get url(): string {
    return `http://${this.#authority}/${this.#token}/`;
  }

  /** Settles when the trace was read; rejects where that failed. */
  async loaded(): Promise<LoadedTrace> {
    await this.#loading;
    if (this.#trace === undefined) throw new BlockError('INVALID_ARGUMENT', this.#state.problem ?? 'the trace was not read');
    return this.#trace;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  get #authority(): string {
    const { port } = this.#server.address() as AddressInfo;
    const { host } = this.#options;
    return `${host.includes(':') ? `[${host}]` : host}:${port}`;
  }

  async #load(): Promise<void> {
    try {
      const last = await this.#options.load((state) => { this.#state = { phase: 'reading', ...state }; }, (trace) => {
        this.#trace = trace;
        this.#answered.clear();
        this.#state = { ...this.#state, phase: 'ready', version: (this.#state.version ?? 0) + 1 };
      });
      this.#trace = last;
      this.#answered.clear();
      const { version: _, ...state } = this.#state;
      this.#state = { ...state, phase: 'ready' };
    } catch (error) {
      this.#state = { ...this.#state, phase: 'failed', problem: messageOf(error) };
    }
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // a page of another site that had its name point here would send that name
    if (!this.#isOurName(request.headers.host)) return refuse(response, 421, 'this server has another name');
    const [, token = '', path = '', ...more] = (request.url ?? '').split('?', 1)[0]!.split('/');
    if (!sameText(token, this.#token) || more.length > 0) return refuse(response, 403, 'the address needs the token that trace serve printed');
    if (path === '' && request.method === 'GET') return send(response, 'text/html; charset=utf-8', this.#options.page, { 'content-security-policy': this.#policy });
    if (path === 'status' && request.method === 'GET') return send(response, 'application/json', JSON.stringify(this.#state));
    if (path === 'ask' && request.method === 'POST') return this.#answer(request, response);
    refuse(response, 404, 'there is nothing here');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const trace = this.#trace;
    if (trace === undefined) return refuse(response, 503, 'the trace is still being read');
    const text = await readBody(request);
    const question = parseQuestion(parseJson(text));
    const answered = this.#answered.get(text) ?? encode(answer(trace.model, trace, question));
    // going back is what people do most, and all of the trace is what takes longest
    if (question.ask === 'view' && trace === this.#trace) remember(this.#answered, text, answered);
    send(response, 'application/octet-stream', answered);
  }

  #isOurName(host: string | undefined): boolean {
    if (host === undefined) return false;
    const { port } = this.#server.address() as AddressInfo;
    const names = ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`);
    return host === this.#authority || names.includes(host.toLowerCase());
  }
}

function remember(answers: Map<string, Uint8Array>, question: string, given: Uint8Array): void {
  answers.delete(question);
  answers.set(question, given);
  for (const [oldest] of answers) {
    if (answers.size <= MAX_REMEMBERED) break;
    answers.delete(oldest);
  }
}

/** In a time that does not tell where they differ. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

function send(response: ServerResponse, type: string, body: string | Uint8Array, more: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, {
    'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store', 'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer', 'cross-origin-resource-policy': 'same-origin', 'cross-origin-opener-policy': 'same-origin', ...more,
  });
  response.end(body);
}

function refuse(response: ServerResponse, status: number, why: string): void {
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
  response.end(`${why}\n`);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_QUESTION_BYTES) throw new BlockError('INVALID_ARGUMENT', `a question is longer than ${MAX_QUESTION_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new BlockError('INVALID_ARGUMENT', 'a question is JSON');
  }
}
