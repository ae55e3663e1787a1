/** What a server offers: a node behind a name, and the numbers that its clients are told. */
import { assert } from '../base/assert.js';
import { alignDown } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import { MAX_PAYLOAD, MAX_STRING, TransmissionFlag } from './protocol.js';

/** Sizes of exports are whole sectors, as QEMU's are. */
const SECTOR = 512;
const PREFERRED_BLOCK = 4096;

/** What block status needs of a dirty bitmap. */
export interface ExportBitmap {
  readonly name: string;
  /** The first dirty byte in [offset, end), or `end` where all is clean. */
  nextDirty(offset: number, end: number): number;
  /** The first clean byte in [offset, end), or `end` where all is dirty. */
  nextClean(offset: number, end: number): number;
}

/** Who a client is, for a log. */
export interface ClientFacts {
  /** `unix`, or the address and port of the other end. */
  readonly peer: string;
  readonly tls: boolean;
}

/** A request that the node could not carry out, for a log. */
export interface FailedRequest {
  /** As the client was told it. */
  readonly what: string;
  readonly offset: number;
  readonly bytes: number;
  readonly error: unknown;
}

export interface NbdExport {
  /** At most 4096 bytes of UTF-8; the empty name is the default export. */
  readonly name: string;
  readonly description: string | null;
  /** All connections of all its clients submit here: that is what makes a flush of one cover the writes of the others. */
  readonly backend: BlockBackend;
  readonly readOnly: boolean;
  /** Tell clients that they may spread over several connections. */
  readonly multiConn: boolean;
  /** Offered as `qemu:dirty-bitmap:NAME`. */
  readonly bitmaps: readonly ExportBitmap[];
  /** Offer `qemu:allocation-depth`. */
  readonly allocationDepth: boolean;
  /** A client chose this export, or is gone again. */
  onConnect?(client: ClientFacts): void;
  onDisconnect?(client: ClientFacts): void;
  onFailure?(failure: FailedRequest): void;
}

/** What a client of an export hangs on to. */
export interface ExportUser {
  readonly facts: ClientFacts;
  /** Ends the connection at once; resolves when nothing of it touches the backend any more. */
  drop(): Promise<void>;
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** An export while it is served: its size is fixed from here on. */
export class ServedExport {
  readonly source: NbdExport;
  readonly name: Buffer;
  readonly description: Buffer | null;
  readonly bytes: number;
  readonly sizes: BlockSizes;
  readonly users = new Set<ExportUser>();
  readonly #flags: number;

  constructor(source: NbdExport) {
    this.source = source;
    this.name = Buffer.from(source.name);
    this.description = source.description === null ? null : Buffer.from(source.description);
    if (this.name.byteLength > MAX_STRING) throw new BlockError('INVALID_ARGUMENT', `export name '${source.name}' too long`);
    if (this.description !== null && this.description.byteLength > MAX_STRING) {
      throw new BlockError('INVALID_ARGUMENT', `description '${source.description}' too long`);
    }
    const { node } = source.backend;
    this.bytes = alignDown(node.length(), SECTOR);
    const minimum = node.limits.requestAlignment;
    assert(minimum <= MAX_PAYLOAD, `an alignment of ${minimum}`);
    this.sizes = { minimum, preferred: Math.max(PREFERRED_BLOCK, minimum), maximum: Math.min(node.limits.maxTransfer, MAX_PAYLOAD) };
    this.#flags = flagsOf(source);
  }

  get readOnly(): boolean { return this.source.readOnly; }

  /** Transmission flags, as one client is told them. */
  flagsFor(structured: boolean): number {
    return this.#flags + (structured ? TransmissionFlag.SEND_DF : 0);
  }

  join(user: ExportUser): void {
    this.users.add(user);
    this.source.onConnect?.(user.facts);
  }

  leave(user: ExportUser): void {
    if (this.users.delete(user)) this.source.onDisconnect?.(user.facts);
  }
}

function flagsOf({ readOnly, multiConn }: NbdExport): number {
  const { HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_CACHE, CAN_MULTI_CONN, READ_ONLY, SEND_TRIM, SEND_WRITE_ZEROES, SEND_FAST_ZERO } = TransmissionFlag;
  const writes = readOnly ? READ_ONLY : SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
  return HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE | (multiConn ? CAN_MULTI_CONN : 0) | writes;
}
