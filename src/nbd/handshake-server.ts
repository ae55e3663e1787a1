/**
 * The server's side of fixed newstyle negotiation (doc/proto.md, "Newstyle negotiation") as a machine that takes bytes
 * and says what to do: it knows nothing of sockets and time. Its answers, texts included, are those of qemu-nbd 7.2.
 */
import type { ServedExport } from './export.js';
import { contextsOf, selectContexts, type MetaContext } from './meta-contexts.js';
import { blockSizeInfo, contextReply, exportInfo, exportNameReply, infoReply, optionReply, serverReply } from './option-replies.js';
import { ClientFlag, Info, MAX_PAYLOAD, MAX_STRING, Option, OPTION_MAGIC, OptionReply, optionName } from './protocol.js';

/** Longer ones end the connection, as they do in QEMU. */
const MAX_OPTION = MAX_PAYLOAD;
/** Of options that we know, so much is kept; the rest of a longer one is skipped, and an error answered. */
const MAX_KEPT_OPTION = 1024 * 1024;
const HEAD = 16;

export interface HandshakeContext {
  /** `required`: a plain connection where TLS must be started first. `active`: inside TLS. */
  readonly tls: 'none' | 'required' | 'active';
  /** By the bytes of its name. */
  find(name: Buffer): ServedExport | undefined;
  list(): Iterable<ServedExport>;
}

/** What the client has chosen: how transmission goes on from here. */
export interface Negotiated {
  readonly export: ServedExport;
  readonly structured: boolean;
  readonly contexts: readonly MetaContext[];
}

/** What follows after the replies have been sent. `drop` says why the client cannot be talked to. */
export type Outcome =
  | { readonly kind: 'transmission'; readonly negotiated: Negotiated }
  | { readonly kind: 'start-tls' }
  | { readonly kind: 'abort' }
  | { readonly kind: 'drop'; readonly why: string };

/** Ends the parsing of an option's payload with an error reply. */
class BadOption extends Error {}

export class ServerHandshake {
  #context: HandshakeContext;
  #stage: 'flags' | 'head' | 'payload' | 'skip' = 'flags';
  #buffer = Buffer.alloc(4);
  #filled = 0;
  #skip = 0;
  #option = 0;
  #length = 0;
  #fixed = false;
  #noZeroes = false;
  #structured = false;
  #contexts: { readonly export: ServedExport; readonly chosen: readonly MetaContext[] } | null = null;
  /** To be sent, in order. */
  replies: Buffer[] = [];
  outcome: Outcome | null = null;

  constructor(context: HandshakeContext) {
    this.#context = context;
  }

  /** Goes on inside TLS, with nothing but the client's flags kept from before. */
  secured(): void {
    this.#context = { ...this.#context, tls: 'active' };
    this.outcome = null;
  }

  /** Takes bytes from `at` until one option is answered or they are used up; returns where it stopped. */
  receive(chunk: Uint8Array, at: number): number {
    if (this.#stage === 'skip') {
      const skipped = Math.min(this.#skip, chunk.byteLength - at);
      this.#skip -= skipped;
      if (this.#skip === 0) this.#answer(null);
      return at + skipped;
    }
    const taken = Math.min(this.#buffer.byteLength - this.#filled, chunk.byteLength - at);
    this.#buffer.set(chunk.subarray(at, at + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === this.#buffer.byteLength) this.#complete();
    return at + taken;
  }

  #complete(): void {
    const bytes = this.#buffer;
    switch (this.#stage) {
      case 'flags':
        return this.#takeFlags(bytes.readUInt32BE(0));
      case 'head':
        return this.#takeHead(bytes);
      case 'payload':
      case 'skip':
        return this.#answer(bytes);
    }
  }

  #expect(stage: 'head' | 'payload', bytes: number): void {
    this.#stage = stage;
    this.#buffer = Buffer.alloc(bytes);
    this.#filled = 0;
  }

  #takeFlags(flags: number): void {
    this.#fixed = (flags & ClientFlag.FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & ClientFlag.NO_ZEROES) !== 0;
    const unknown = (flags & ~(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)) >>> 0;
    if (unknown !== 0) return this.#drop(`Unknown client flags 0x${unknown.toString(16)} received`);
    this.#expect('head', HEAD);
  }

  #takeHead(bytes: Buffer): void {
    if (bytes.readBigUInt64BE(0) !== OPTION_MAGIC) return this.#drop('Bad magic received');
    this.#option = bytes.readUInt32BE(8);
    this.#length = bytes.readUInt32BE(12);
    if (this.#length > MAX_OPTION) return this.#drop(`len (${this.#length} ) is larger than max len (${MAX_OPTION})`);
    if (this.#mustDrop()) return;
    if (this.#length === 0) return this.#answer(this.#buffer.subarray(0, 0));
    if (this.#length <= MAX_KEPT_OPTION && this.#keeps()) return this.#expect('payload', this.#length);
    this.#stage = 'skip';
    this.#skip = this.#length;
  }

  /** Where no error can be answered, or QEMU does not wait for the payload. */
  #mustDrop(): boolean {
    const wantsTls = this.#context.tls === 'required';
    if (!this.#fixed && (wantsTls || this.#option !== Option.EXPORT_NAME)) {
      this.#drop(wantsTls ? `Unsupported option 0x${this.#option.toString(16)}` : `Unsupported option ${this.#option} (${optionName(this.#option)})`);
    } else if (this.#option === Option.EXPORT_NAME && wantsTls) {
      this.#drop(`Option 0x${this.#option.toString(16)} not permitted before TLS`);
    } else if (this.#option === Option.EXPORT_NAME && this.#length > MAX_STRING) {
      this.#drop('Bad length received');
    }
    return this.outcome !== null;
  }

  /** Payloads of other options are not looked at. */
  #keeps(): boolean {
    if (this.#context.tls === 'required') return false;
    return this.#option === Option.EXPORT_NAME || this.#option === Option.INFO || this.#option === Option.GO
      || this.#option === Option.LIST_META_CONTEXT || this.#option === Option.SET_META_CONTEXT;
  }

  /** `payload` is null where it was skipped. */
  #answer(payload: Buffer | null): void {
    this.#expect('head', HEAD);
    if (this.#context.tls === 'required') return this.#answerBeforeTls();
    switch (this.#option) {
      case Option.EXPORT_NAME:
        return this.#exportName(payload!);
      case Option.ABORT:
        this.#reply(OptionReply.ACK);
        this.outcome = { kind: 'abort' };
        return;
      case Option.INFO:
      case Option.GO:
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        return this.#answerParsed(payload);
      case Option.LIST:
      case Option.STARTTLS:
      case Option.STRUCTURED_REPLY:
        return this.#length > 0 ? this.#rejectLength() : this.#answerEmpty();
      default:
        return this.#error(OptionReply.ERR_UNSUP, `Unsupported option ${this.#option} (${optionName(this.#option)})`);
    }
  }

  #answerBeforeTls(): void {
    if (this.#option === Option.STARTTLS) {
      if (this.#length > 0) {
        this.#rejectLength();
        return this.#drop(`option '${optionName(this.#option)}' has unexpected length`);
      }
      this.#reply(OptionReply.ACK);
      this.outcome = { kind: 'start-tls' };
      return;
    }
    this.#error(OptionReply.ERR_TLS_REQD, `Option 0x${this.#option.toString(16)} not permitted before TLS`);
    if (this.#option === Option.ABORT) this.outcome = { kind: 'abort' };
  }

  #answerEmpty(): void {
    if (this.#option === Option.LIST) {
      for (const served of this.#context.list()) this.replies.push(serverReply(served));
      this.#reply(OptionReply.ACK);
    } else if (this.#option === Option.STARTTLS) {
      if (this.#context.tls === 'active') this.#error(OptionReply.ERR_INVALID, 'TLS already enabled');
      else this.#error(OptionReply.ERR_POLICY, 'TLS not configured');
    } else if (this.#structured) {
      this.#error(OptionReply.ERR_INVALID, 'structured reply already negotiated');
    } else {
      this.#structured = true;
      this.#reply(OptionReply.ACK);
    }
  }

  #answerParsed(payload: Buffer | null): void {
    const info = this.#option === Option.INFO || this.#option === Option.GO;
    if (this.#option === Option.SET_META_CONTEXT && !this.#structured) {
      return this.#error(OptionReply.ERR_INVALID, `request option '${optionName(this.#option)}' when structured reply is not negotiated`);
    }
    if (this.#option === Option.SET_META_CONTEXT) this.#contexts = null;
    if (payload === null) return this.#error(OptionReply.ERR_TOO_BIG, `option '${optionName(this.#option)}' has unexpected length`);
    try {
      const fields = new Fields(payload, optionName(this.#option));
      if (info) this.#info(fields);
      else this.#metaContexts(fields);
    } catch (error) {
      if (!(error instanceof BadOption)) throw error;
      this.#error(OptionReply.ERR_INVALID, error.message);
    }
  }

  #exportName(name: Buffer): void {
    const served = this.#context.find(name);
    if (served === undefined) return this.#drop('export not found');
    this.replies.push(exportNameReply(served, this.#structured, this.#noZeroes));
    this.#finish(served);
  }

  #info(fields: Fields): void {
    const name = fields.string();
    const asked = new Set<number>();
    for (let left = fields.u16(); left > 0; left--) asked.add(fields.u16());
    if (fields.left > 0) return this.#rejectLength();
    const served = this.#context.find(name);
    if (served === undefined) return this.#unknownExport(name);
    const option = this.#option;
    const { minimum, preferred, maximum } = served.sizes;
    const knowsSizes = asked.has(Info.BLOCK_SIZE);
    if (asked.has(Info.NAME)) this.replies.push(infoReply(option, Info.NAME, name));
    if (served.description !== null) this.replies.push(infoReply(option, Info.DESCRIPTION, served.description));
    // a client that did not ask will not obey: it may send what it likes, and pays for it
    this.replies.push(blockSizeInfo(option, { minimum: option === Option.INFO || knowsSizes ? minimum : 1, preferred, maximum }));
    this.replies.push(exportInfo(option, served, this.#structured));
    if (option === Option.INFO && !knowsSizes && minimum > 1) {
      return this.#error(OptionReply.ERR_BLOCK_SIZE_REQD, 'request NBD_INFO_BLOCK_SIZE to use this export');
    }
    this.#reply(OptionReply.ACK);
    if (option === Option.GO) this.#finish(served);
  }

  #metaContexts(fields: Fields): void {
    const name = fields.string();
    const served = this.#context.find(name);
    if (served === undefined) return this.#unknownExport(name);
    const queries: string[] = [];
    for (let left = fields.u32(); left > 0; left--) {
      const query = fields.query();
      if (query !== null) queries.push(query);
    }
    if (fields.left > 0) return this.#rejectLength();
    const listing = this.#option === Option.LIST_META_CONTEXT;
    const chosen = selectContexts(contextsOf(served), queries, listing);
    for (const { id, name: context } of chosen) this.replies.push(contextReply(this.#option, listing ? 0 : id, context));
    this.#reply(OptionReply.ACK);
    if (!listing) this.#contexts = { export: served, chosen };
  }

  #finish(served: ServedExport): void {
    const contexts = this.#contexts?.export === served ? this.#contexts.chosen : [];
    this.outcome = { kind: 'transmission', negotiated: { export: served, structured: this.#structured, contexts } };
  }

  #unknownExport(name: Buffer): void {
    const shown = name.byteLength < 80 ? name : Buffer.concat([name.subarray(0, 80), Buffer.from('...')]);
    this.#reply(OptionReply.ERR_UNKNOWN, Buffer.concat([Buffer.from("export '"), shown, Buffer.from("' not present")]));
  }

  #rejectLength(): void {
    this.#error(OptionReply.ERR_INVALID, `option '${optionName(this.#option)}' has unexpected length`);
  }

  #error(type: number, message: string): void {
    this.#reply(type, Buffer.from(message));
  }

  #reply(type: number, payload?: Buffer): void {
    this.replies.push(optionReply(this.#option, type, ...(payload === undefined ? [] : [payload])));
  }

  #drop(why: string): void {
    this.outcome = { kind: 'drop', why };
  }
}

/** Reads the fields of an option's payload; a field that the payload has no room for ends it. */
class Fields {
  readonly #bytes: Buffer;
  readonly #option: string;
  #at = 0;

  constructor(bytes: Buffer, option: string) {
    this.#bytes = bytes;
    this.#option = option;
  }

  get left(): number { return this.#bytes.byteLength - this.#at; }

  u16(): number { return this.#take(2).readUInt16BE(0); }
  u32(): number { return this.#take(4).readUInt32BE(0); }

  /** A name behind its length. */
  string(): Buffer {
    const bytes = this.u32();
    if (bytes > MAX_STRING) throw new BadOption(`Invalid name length: ${bytes}`);
    return this.#text(bytes);
  }

  /** Null for one that is too long to be the name of anything. */
  query(): string | null {
    const bytes = this.u32();
    if (bytes <= MAX_STRING) return this.#text(bytes).toString();
    this.#take(bytes);
    return null;
  }

  #text(bytes: number): Buffer {
    const text = this.#take(bytes);
    if (text.includes(0)) throw new BadOption(`Unexpected embedded NUL in option ${this.#option}`);
    return text;
  }

  #take(bytes: number): Buffer {
    if (bytes > this.left) throw new BadOption(`Inconsistent lengths in option ${this.#option}`);
    this.#at += bytes;
    return this.#bytes.subarray(this.#at - bytes, this.#at);
  }
}
