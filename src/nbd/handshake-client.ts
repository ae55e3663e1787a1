/**
 * The client's side of the negotiation (doc/proto.md, "Handshake phase"): fixed newstyle with all its options, plain
 * newstyle, and oldstyle. Every length is checked against what its field may hold before anything is read.
 */
import { isPowerOfTwo, MAX_OFFSET, viewOf, getU64 } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { HandshakeWire } from './client-wire.js';
import {
  ClientFlag, HandshakeFlag, Info, INIT_MAGIC, MAX_PAYLOAD, MAX_STRING, OLDSTYLE_MAGIC, Option, OPTION_MAGIC, OPTION_REPLY_MAGIC, optionName,
  OptionReply, TransmissionFlag, u16, u32,
} from './protocol.js';
import type { TlsCredentials } from './tls.js';

export interface NegotiateOptions {
  readonly exportName: string;
  /** Null: plain text. Given, a server that has no TLS is refused. */
  readonly tls: { readonly credentials: TlsCredentials; readonly hostname: string | null } | null;
  /** Contexts for BLOCK_STATUS; those that the server lacks are left out of the answer. */
  readonly contexts: readonly string[];
  /** Default true; false keeps to simple replies. */
  readonly structuredReplies?: boolean | undefined;
}

/** What the server told of an export. */
export interface ExportInfo {
  /** Bytes, rounded down to whole blocks where the server's minimum block needs it. */
  readonly size: number;
  /** TransmissionFlag bits. */
  readonly flags: number;
  /** 0 where the server told no block sizes. */
  readonly minimumBlock: number;
  readonly preferredBlock: number;
  /** Largest payload. */
  readonly maximumBlock: number;
  readonly canonicalName: string | null;
  readonly description: string | null;
}

export interface Negotiated extends ExportInfo {
  readonly structuredReplies: boolean;
  /** Name of a context → its id in BLOCK_STATUS replies. */
  readonly contexts: ReadonlyMap<string, number>;
}

interface ListedExport {
  readonly name: string;
  readonly description: string | null;
}

/** No server has more; one that says so only fills our memory. */
const MAX_LISTED = 65_536;
const MAX_CONTEXTS = 4096;
const OLDSTYLE_PADDING = 124;
const MAX_INFO = 2 + MAX_STRING;
const MAX_OPTION_DATA = 64 * 1024;

interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

/** A server in the option phase. */
export class OptionPhase {
  readonly #wire: HandshakeWire;
  /** Whether the server leaves out the zeroes after an EXPORT_NAME. */
  readonly #noZeroes: boolean;
  /** False: only EXPORT_NAME is understood. */
  readonly fixed: boolean;
  structuredReplies = false;

  constructor(wire: HandshakeWire, flags: number) {
    this.#wire = wire;
    this.fixed = (flags & HandshakeFlag.FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0;
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE((this.fixed ? ClientFlag.FIXED_NEWSTYLE : 0) + (this.#noZeroes ? ClientFlag.NO_ZEROES : 0));
    wire.send(answer);
  }

  async startTls(tls: NonNullable<NegotiateOptions['tls']>): Promise<void> {
    const wire = this.#wire;
    if (!this.fixed) throw peerRefused(wire, 'Server does not support STARTTLS');
    this.#send(Option.STARTTLS, Buffer.alloc(0));
    const reply = await this.#reply(Option.STARTTLS, MAX_STRING);
    if (reply.type !== OptionReply.ACK) {
      throw reply.type === OptionReply.ERR_UNSUP ? peerRefused(wire, 'Server does not support STARTTLS') : this.#refusal(Option.STARTTLS, reply);
    }
    if (reply.data.byteLength > 0) throw protocolError(wire, 'the acknowledgement of STARTTLS has a payload');
    // Bytes that were sent in plain text must not be taken for the session's
    if (wire.unread > 0) throw protocolError(wire, 'the server sent plain text after it agreed to start TLS');
    await wire.socket.startTls(tls.credentials, tls.hostname, wire.msLeft);
  }

  async requestStructuredReplies(): Promise<void> {
    if (!this.fixed) return;
    this.#send(Option.STRUCTURED_REPLY, Buffer.alloc(0));
    const reply = await this.#reply(Option.STRUCTURED_REPLY, MAX_STRING);
    if (reply.type === OptionReply.ACK) this.structuredReplies = true;
    else if (!canDoWithout(reply)) throw this.#refusal(Option.STRUCTURED_REPLY, reply);
  }

  /** The ids of those contexts that the server has. Queries like `qemu:` are for `option` LIST only, where all ids are 0. */
  async metaContexts(option: 9 | 10, exportName: string, queries: readonly string[]): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    if (!this.structuredReplies || (queries.length === 0 && option === Option.SET_META_CONTEXT)) return found;
    this.#send(option, Buffer.concat([counted(exportName), u32(queries.length), ...queries.map(counted)]));
    for await (const reply of this.#replies(option, 4 + MAX_STRING)) {
      if (reply.type === OptionReply.META_CONTEXT) {
        if (reply.data.byteLength < 5) throw protocolError(this.#wire, 'a meta context has no name');
        const name = reply.data.toString('utf8', 4);
        if (option === Option.SET_META_CONTEXT && !queries.includes(name)) throw protocolError(this.#wire, `the server chose the context '${name}', which was not asked for`);
        found.set(name, reply.data.readUInt32BE(0));
        if (found.size > MAX_CONTEXTS) throw protocolError(this.#wire, `the server has more than ${MAX_CONTEXTS} contexts`);
      } else if (canDoWithout(reply) || reply.type === OptionReply.ERR_UNKNOWN) {
        return new Map();
      } else {
        throw this.#refusal(option, reply);
      }
    }
    return found;
  }

  /** INFO or GO; null where the server has neither. */
  async info(option: 6 | 7, exportName: string): Promise<ExportInfo | null> {
    const wanted = option === Option.GO ? [Info.BLOCK_SIZE] : [Info.BLOCK_SIZE, Info.DESCRIPTION, Info.NAME];
    const data = Buffer.concat([counted(exportName), u16(wanted.length), ...wanted.map(u16)]);
    if (!this.fixed) return null;
    this.#send(option, data);
    const collected: InfoParts = { size: null, flags: 0, minimum: 0, preferred: 0, maximum: MAX_PAYLOAD, name: null, description: null };
    for await (const reply of this.#replies(option, MAX_INFO)) {
      if (reply.type === OptionReply.INFO) this.#collect(collected, reply.data);
      else if (reply.type === OptionReply.ERR_UNSUP) return null;
      else throw this.#refusal(option, reply);
    }
    if (collected.size === null) throw protocolError(this.#wire, 'the server did not tell the size of the export');
    return exportInfoOf(collected);
  }

  /** EXPORT_NAME: the server answers with the export, or hangs up. */
  async exportName(name: string): Promise<ExportInfo> {
    this.#send(Option.EXPORT_NAME, Buffer.from(name, 'utf8'));
    const answer = await this.#wire.read(10);
    if (!this.#noZeroes) await this.#wire.skip(OLDSTYLE_PADDING);
    return exportInfoOf({ ...NO_INFO, size: sizeOf(this.#wire, answer, 0), flags: answer.readUInt16BE(8) });
  }

  /** The names that the server tells; throws NOT_SUPPORTED where it does not tell. */
  async list(): Promise<ListedExport[]> {
    const found: ListedExport[] = [];
    if (!this.fixed) throw peerRefused(this.#wire, 'Server does not support export lists');
    this.#send(Option.LIST, Buffer.alloc(0));
    for await (const reply of this.#replies(Option.LIST, 4 + 2 * MAX_STRING)) {
      if (reply.type === OptionReply.ERR_UNSUP) throw peerRefused(this.#wire, `Unsupported option ${Option.LIST} (${optionName(Option.LIST)})`, 'ENOTSUP');
      if (reply.type !== OptionReply.SERVER) throw this.#refusal(Option.LIST, reply);
      const nameBytes = reply.data.byteLength < 4 ? Infinity : reply.data.readUInt32BE(0);
      if (nameBytes > Math.min(MAX_STRING, reply.data.byteLength - 4)) throw protocolError(this.#wire, 'an export name is longer than its message');
      const description = reply.data.toString('utf8', 4 + nameBytes);
      found.push({ name: reply.data.toString('utf8', 4, 4 + nameBytes), description: description === '' ? null : description });
      if (found.length > MAX_LISTED) throw protocolError(this.#wire, `the server lists more than ${MAX_LISTED} exports`);
    }
    return found;
  }

  /** Says goodbye; the answer is not waited for. */
  abort(): void {
    this.#send(Option.ABORT, Buffer.alloc(0));
    this.#wire.socket.flush();
  }

  #collect(parts: InfoParts, data: Buffer): void {
    const wire = this.#wire;
    if (data.byteLength < 2) throw protocolError(wire, 'a piece of information has no type');
    const expect = (bytes: number): void => {
      if (data.byteLength !== bytes) throw protocolError(wire, `information ${data.readUInt16BE(0)} has ${data.byteLength} bytes, expected ${bytes}`);
    };
    switch (data.readUInt16BE(0)) {
      case Info.EXPORT:
        expect(12);
        parts.size = sizeOf(wire, data, 2);
        parts.flags = data.readUInt16BE(10);
        return;
      case Info.NAME:
        parts.name = data.toString('utf8', 2);
        return;
      case Info.DESCRIPTION:
        parts.description = data.toString('utf8', 2);
        return;
      case Info.BLOCK_SIZE:
        expect(14);
        Object.assign(parts, blockSizesOf(wire, data));
    }
  }

  #send(option: number, data: Buffer): void {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(OPTION_MAGIC);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(data.byteLength, 12);
    this.#wire.send(header);
    this.#wire.send(data);
  }

  /** What the server answers before its acknowledgement. */
  async *#replies(option: number, limit: number): AsyncGenerator<Reply, void> {
    for (let reply = await this.#reply(option, limit); reply.type !== OptionReply.ACK; reply = await this.#reply(option, limit)) yield reply;
  }

  async #reply(option: number, limit: number): Promise<Reply> {
    const wire = this.#wire;
    const header = await readAs(wire, 20, 'option reply');
    if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw protocolError(wire, 'Unexpected option reply magic');
    if (header.readUInt32BE(8) !== option) throw protocolError(wire, `the server answered option ${header.readUInt32BE(8)}, expected ${option}`);
    const type = header.readUInt32BE(12);
    const bytes = header.readUInt32BE(16);
    if (bytes > (type >= 0x8000_0000 ? MAX_OPTION_DATA : limit)) throw protocolError(wire, `an option reply of ${bytes} bytes is too long`);
    if (type === OptionReply.ACK && bytes > 0) throw protocolError(wire, 'an acknowledgement has a payload');
    return { type, data: bytes === 0 ? Buffer.alloc(0) : Buffer.from(await wire.read(bytes)) };
  }

  #refusal(option: number, reply: Reply): BlockError {
    const what = `option ${option} (${optionName(option)})`;
    if (reply.type < 0x8000_0000) return protocolError(this.#wire, `Unexpected reply type ${reply.type} to ${what}`);
    const why = REFUSALS[reply.type]?.(what) ?? `Unknown error code when asking for ${what}`;
    const said = printable(reply.data);
    const hint = [...reply.type === OptionReply.ERR_TLS_REQD ? ['Did you forget a valid tls-creds?'] : [], ...said === '' ? [] : [`server reported: ${said}`]].join('\n');
    return peerRefused(this.#wire, why, reply.type === OptionReply.ERR_UNKNOWN ? 'ENOENT' : 'EINVAL', { said, hint });
  }
}

const REFUSALS: Readonly<Record<number, (what: string) => string>> = {
  [OptionReply.ERR_UNSUP]: (what) => `Unsupported ${what}`,
  [OptionReply.ERR_POLICY]: (what) => `Denied by server for ${what}`,
  [OptionReply.ERR_INVALID]: (what) => `Invalid parameters for ${what}`,
  [OptionReply.ERR_PLATFORM]: (what) => `Server lacks support for ${what}`,
  [OptionReply.ERR_TLS_REQD]: (what) => `TLS negotiation required before ${what}`,
  [OptionReply.ERR_UNKNOWN]: () => 'Requested export not available',
  [OptionReply.ERR_SHUTDOWN]: (what) => `Server shutting down before ${what}`,
  [OptionReply.ERR_BLOCK_SIZE_REQD]: (what) => `Server requires INFO_BLOCK_SIZE for ${what}`,
};

interface InfoParts {
  size: number | null;
  flags: number;
  minimum: number;
  preferred: number;
  maximum: number;
  name: string | null;
  description: string | null;
}

const NO_INFO: InfoParts = { size: null, flags: 0, minimum: 0, preferred: 0, maximum: MAX_PAYLOAD, name: null, description: null };

/** Reads the greeting. Resolves with the option phase, or with the export of an oldstyle server, which has no options. */
export async function greet(wire: HandshakeWire): Promise<OptionPhase | ExportInfo> {
  const initial = (await readAs(wire, 8, 'initial magic')).readBigUInt64BE(0);
  if (initial !== INIT_MAGIC) throw protocolError(wire, `Bad initial magic received: ${hex64(initial)}`);
  const style = (await readAs(wire, 8, 'server magic')).readBigUInt64BE(0);
  if (style === OPTION_MAGIC) return new OptionPhase(wire, (await readAs(wire, 2, 'server flags')).readUInt16BE(0));
  if (style !== OLDSTYLE_MAGIC) throw protocolError(wire, `Bad server magic received: ${hex64(style)}`);
  const rest = await wire.read(12);
  const flags = rest.readUInt32BE(8);
  if (flags > 0xffff) throw protocolError(wire, `unexpected export flags 0x${flags.toString(16)}`);
  await wire.skip(OLDSTYLE_PADDING);
  return exportInfoOf({ ...NO_INFO, size: sizeOf(wire, rest, 0), flags });
}

/** The whole negotiation, up to the transmission phase. */
export async function negotiate(wire: HandshakeWire, options: NegotiateOptions): Promise<Negotiated> {
  if (Buffer.byteLength(options.exportName) > MAX_STRING) throw new BlockError('INVALID_ARGUMENT', 'export name too long to send to server');
  const server = await greet(wire);
  if (!(server instanceof OptionPhase)) {
    if (options.tls !== null) throw peerRefused(wire, 'Server does not support STARTTLS');
    if (options.exportName !== '') throw peerRefused(wire, 'Server does not support non-empty export names');
    return { ...server, structuredReplies: false, contexts: new Map() };
  }
  if (options.tls !== null) await server.startTls(options.tls);
  if (options.structuredReplies ?? true) await server.requestStructuredReplies();
  const contexts = server.fixed ? await server.metaContexts(Option.SET_META_CONTEXT, options.exportName, options.contexts) : new Map<string, number>();
  const info = await server.info(Option.GO, options.exportName) ?? await server.exportName(options.exportName);
  return { ...info, structuredReplies: server.structuredReplies, contexts };
}

function exportInfoOf(parts: InfoParts): ExportInfo {
  const flags = (parts.flags & TransmissionFlag.HAS_FLAGS) === 0 ? 0 : parts.flags;
  const unit = Math.max(parts.minimum, 1);
  return {
    size: parts.size! - parts.size! % unit, flags, minimumBlock: parts.minimum, preferredBlock: parts.preferred, maximumBlock: parts.maximum,
    canonicalName: parts.name, description: parts.description,
  };
}

function sizeOf(wire: HandshakeWire, data: Buffer, at: number): number {
  const size = getU64(viewOf(data), at);
  if (size === undefined) throw protocolError(wire, `the export is larger than ${MAX_OFFSET} bytes`);
  return size;
}

function blockSizesOf(wire: HandshakeWire, data: Buffer): Pick<InfoParts, 'minimum' | 'preferred' | 'maximum'> {
  const minimum = data.readUInt32BE(2);
  const preferred = data.readUInt32BE(6);
  const maximum = data.readUInt32BE(10);
  if (!isPowerOfTwo(minimum) || minimum > 65_536) throw protocolError(wire, `server minimum block size ${minimum} is not a power of two up to 64 KiB`);
  if (!isPowerOfTwo(preferred) || preferred < minimum) throw protocolError(wire, `server preferred block size ${preferred} is not valid`);
  if (maximum < minimum) throw protocolError(wire, `server maximum block size ${maximum} is not valid`);
  const most = Math.min(maximum, MAX_PAYLOAD);
  return { minimum, preferred, maximum: most - most % minimum };
}

function hex64(word: bigint): string {
  return `0x${word.toString(16).padStart(16, '0')}`;
}

/** `what` is not there where the server hangs up. */
async function readAs(wire: HandshakeWire, bytes: number, what: string): Promise<Buffer> {
  try {
    return await wire.read(bytes);
  } catch (error) {
    if (!(error instanceof BlockError) || error.errno !== 'EIO') throw error;
    throw new NegotiationError(error.code, error.message, { node: error.node, errno: error.errno, cause: error }, `Failed to read ${what}: Unexpected end-of-file before all data were read`);
  }
}

function canDoWithout({ type }: Reply): boolean {
  return type >= 0x8000_0000;
}

function counted(text: string): Buffer {
  const data = Buffer.from(text, 'utf8');
  return Buffer.concat([u32(data.byteLength), data]);
}

/** A peer's words, without what could steer a terminal. */
export function printable(data: Uint8Array): string {
  return Buffer.from(data).toString('utf8').replace(/[\p{Cc}\p{Cf}]/gu, '?').slice(0, 200);
}

function protocolError(wire: { readonly socket: { readonly name: string } }, why: string): BlockError {
  return new NegotiationError('PROTOCOL', `'${wire.socket.name}' broke the NBD protocol: ${why}`, { node: wire.socket.name, errno: 'EINVAL' }, why);
}

export function peerRefused(wire: HandshakeWire, why: string, errno = 'EINVAL', { said, hint } = { said: '', hint: '' }): BlockError {
  const told = said === '' ? why : `${why} (server reported: ${said})`;
  return new NegotiationError(errno === 'ENOENT' ? 'NOT_FOUND' : errno === 'ENOTSUP' ? 'NOT_SUPPORTED' : 'PEER', `Could not open the export of '${wire.socket.name}': ${told}`,
    { node: wire.socket.name, errno, hint: hint || undefined }, why);
}

/** Names the server in its message, which QEMU's programs do not. */
class NegotiationError extends BlockError {
  readonly #why: string;

  constructor(code: BlockError['code'], message: string, details: ConstructorParameters<typeof BlockError>[2], why: string) {
    super(code, message, details);
    this.#why = why;
  }

  get plain(): BlockError {
    const { code, node, errno, hint } = this;
    return new BlockError(code, this.#why, { node, errno, hint, cause: this });
  }
}

/** The error as QEMU's programs tell it. */
export function inQemusWords(error: unknown): unknown {
  return error instanceof NegotiationError ? error.plain : error;
}
