/** The driver `nbd`: an export of an NBD server as a node, with QEMU's options and QEMU's reading of block sizes. */
import { alignDown, alignUp } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { PipeBuffer } from '../base/pipe-buffer.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../block/driver.js';
import { RequestFlag, type BlockRequest } from '../block/request.js';
import { BASE_ALLOCATION, NbdClient, type NbdExtent } from '../nbd/client.js';
import type { ResendWatch } from '../nbd/client-request.js';
import { addressText, type NbdAddress } from '../nbd/client-socket.js';
import { Allocation } from '../nbd/protocol.js';
import type { TlsCredentials } from '../nbd/tls.js';
import { loadTargetTls, parseNbdName } from '../nbd/uri.js';

export interface NbdDriverOptions {
  readonly address: NbdAddress;
  readonly exportName?: string | undefined;
  readonly tls?: { readonly credentials: TlsCredentials; readonly hostname: string | null } | null | undefined;
  readonly readOnly?: boolean | undefined;
  /** Block status from this context (QEMU's `x-dirty-bitmap`) instead of `base:allocation`. */
  readonly dirtyBitmap?: string | undefined;
  /** See NbdClient. */
  readonly reconnectDelayMs?: number | undefined;
  readonly openTimeoutMs?: number | undefined;
  readonly connections?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const SECTOR = 512;

export async function openNbdDriver(options: NbdDriverOptions): Promise<NbdDriver> {
  const { address, exportName = '', tls, dirtyBitmap, reconnectDelayMs, openTimeoutMs, connections, signal } = options;
  const context = dirtyBitmap ?? BASE_ALLOCATION;
  const client = await NbdClient.open({ address, exportName, tls, contexts: [context], reconnectDelayMs, openTimeoutMs, connections, signal });
  try {
    if (dirtyBitmap !== undefined && !client.info.contexts.has(context)) {
      throw new BlockError('NOT_FOUND', `requested x-dirty-bitmap ${dirtyBitmap} not found`, { node: client.name, errno: 'EINVAL' });
    }
    if (options.readOnly !== true && client.readOnly) {
      throw new BlockError('READ_ONLY', `Could not open '${client.name}' for writing: NBD export is read-only`, { node: client.name, errno: 'EACCES' });
    }
    return new NbdDriver(client, context);
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** As openNbdDriver, from a URI or one of QEMU's older names. */
export async function openNbdName(name: string, options: Omit<NbdDriverOptions, 'address' | 'exportName' | 'tls'> = {}): Promise<NbdDriver> {
  const target = parseNbdName(name);
  return openNbdDriver({ ...options, address: target.address, exportName: target.exportName, tls: loadTargetTls(target.tls) });
}

/** How QEMU names an export; an export name that was not told differs from an empty one. */
export function exportUri(address: NbdAddress, exportName: string | undefined): string {
  const where = addressText(address);
  if (address.type === 'inet') return `nbd://${where}${exportName === undefined ? '' : `/${exportName}`}`;
  return `nbd+unix://${exportName === undefined ? '' : `/${exportName}`}?socket=${where}`;
}

export class NbdDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'nbd';
  readonly growable = false;
  readonly limits: BlockLimits;
  readonly client: NbdClient;
  readonly #context: string;
  #closed = false;

  constructor(client: NbdClient, context: string) {
    this.client = client;
    this.#context = context;
    this.limits = limitsOf(client, context);
  }

  length(): number { return this.client.size; }
  get lostWrites(): number { return this.client.losses; }
  readonly forgiveLoss = (): void => this.client.forgiveLoss();
  get pipeBytes(): number { return this.client.pipeBytes; }

  submit(request: BlockRequest): Promise<void> {
    switch (request.op) {
      case 'read':
        return this.client.read(request.offset, request.buffer!, inKernel(request), resends(request));
      case 'write':
        return this.client.write(request.offset, request.buffer!, { pipe: inKernel(request), watch: resends(request) });
      case 'write-zeroes':
        return this.#writeZeroes(request);
      case 'discard':
        return this.#discard(request.offset, request.offset + request.bytes);
      case 'flush':
        return this.client.flush();
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    if (!this.client.info.contexts.has(this.#context)) return { kind: 'data', bytes, hostOffset: offset };
    const start = alignDown(offset, this.limits.requestAlignment);
    const end = alignUp(offset + bytes, this.limits.requestAlignment);
    const first = (await this.client.blockStatus(start, end - start, this.#context, true))[0]!;
    // an extent that ends inside the alignment unit would not move the caller on
    const covered = start + first.bytes;
    if (covered <= offset) return { kind: 'data', bytes: Math.min(bytes, start + this.limits.requestAlignment - offset), hostOffset: offset };
    return { kind: kindOf(first, this.#context), bytes: Math.min(bytes, covered - offset), hostOffset: offset };
  }

  /** True where `extents` can be asked for. */
  get canTellExtents(): boolean { return this.#context === BASE_ALLOCATION && this.limits.requestAlignment === 1 && this.client.info.contexts.has(BASE_ALLOCATION); }

  /** As blockStatus, but all that the server tells in one answer. */
  async extents(offset: number, bytes: number): Promise<{ readonly bytes: number; readonly zero: boolean }[]> {
    const told = await this.client.blockStatus(offset, bytes, BASE_ALLOCATION);
    return told.map((extent) => ({ bytes: extent.bytes, zero: kindOf(extent, BASE_ALLOCATION) === 'zero' }));
  }

  readonly cancelInFlight = (): void => this.client.cancelInFlight();

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.client.close();
  }

  async #writeZeroes({ offset, bytes, flags }: BlockRequest): Promise<void> {
    const unit = this.limits.requestAlignment;
    const fast = (flags & RequestFlag.NO_FALLBACK) !== 0;
    if (!this.client.canZero || offset % unit !== 0 || bytes % unit !== 0) {
      throw new BlockError('NOT_SUPPORTED', `the NBD server '${this.client.name}' cannot write these zeroes`, { node: this.client.name, errno: 'ENOTSUP' });
    }
    return this.client.writeZeroes(offset, bytes, { fast, noHole: (flags & RequestFlag.MAY_UNMAP) === 0 });
  }

  /** What the server cannot trim it keeps: a discard is a hint. */
  async #discard(offset: number, end: number): Promise<void> {
    const start = alignUp(offset, this.limits.requestAlignment);
    const bytes = alignDown(end, this.limits.requestAlignment) - start;
    if (this.client.canTrim && bytes > 0) await this.client.trim(start, bytes);
  }
}

/** A server that tells no block sizes is taken to read single bytes where its size or its block status shows that it can. */
function limitsOf({ info }: NbdClient, context: string): BlockLimits {
  const bytewise = info.size % SECTOR !== 0 || info.contexts.has(context);
  const requestAlignment = info.minimumBlock > 0 ? info.minimumBlock : bytewise ? 1 : SECTOR;
  // the client cuts large requests itself, so the node need not; it pads where the alignment asks for it
  return {
    requestAlignment, memoryAlignment: 1, maxTransfer: Infinity, zeroAlignment: requestAlignment, discardAlignment: requestAlignment,
    optTransfer: info.preferredBlock > 0 ? info.preferredBlock : undefined,
  };
}

/**
 * What a hole that is not zero reads as nobody knows, so it is data. So is all that another context tells of: its bits
 * say what is dirty or how deep it lies, and must never be taken for zeros.
 */
function kindOf({ flags }: NbdExtent, context: string): BlockStatus['kind'] {
  return context === BASE_ALLOCATION && (flags & Allocation.ZERO) !== 0 ? 'zero' : 'data';
}

/** A pipe that went over to memory is no business of the client's any more: it belongs to a whole of which this may be a part. */
function inKernel({ pipe }: BlockRequest): PipeBuffer | undefined {
  return pipe?.inKernel === true ? pipe : undefined;
}

/** For a trace; null where nobody listens. */
function resends(request: BlockRequest): ResendWatch | null {
  const node = request.lane?.node;
  return node === undefined ? null : { requeued: () => node.requeued(request), issued: () => node.issuedAgain(request) };
}
