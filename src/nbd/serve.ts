/** What each command of the transmission phase does, and how it is answered. Texts of errors are QEMU's. */
import { DONE } from '../base/done.js';
import { BlockError } from '../base/errors.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../block/request.js';
import { describeExtents, EXTENT_BYTES, MAX_EXTENTS } from './extents.js';
import { Command, CommandFlag, ERRNO_TO_WIRE, ReplyType } from './protocol.js';
import { prefetch } from './prefetch.js';
import { Reply, SIMPLE } from './replies.js';
import type { NbdRequest, Transmission } from './transmission.js';
import { wireErrorOf } from './wire-errors.js';

const EINVAL = ERRNO_TO_WIRE['EINVAL']!;
/** A shorter read is not worth a look at where the holes are: the bytes cost less than the question. */
const SPARSE_BYTES = 32 * 1024;
/** A read that falls into more pieces goes out as one. */
const MAX_PIECES = 1024;
const READ_FAILED = 'reading from file failed';
const NOTHING = new Uint8Array(0);

/** Carries a request out and replies, at once where the disk below answers at once. Never throws. */
export function serve(request: NbdRequest): void {
  if (request.type === Command.WRITE || request.type === Command.WRITE_ZEROES) return change(request);
  if (request.type === Command.READ && isPlainRead(request)) return readPlain(request);
  void serveSlowly(request);
}

async function serveSlowly(request: NbdRequest): Promise<void> {
  try {
    switch (request.type) {
      case Command.READ:
        return await read(request);
      case Command.FLUSH:
        await flushed(request, true);
        return;
      case Command.TRIM:
        return await trim(request);
      case Command.CACHE:
        return await cache(request);
      case Command.BLOCK_STATUS:
        return await blockStatus(request);
      default:
        return refuse(request, `invalid request type (${request.type}) received`);
    }
  } catch (error) {
    // nothing above throws on purpose: whatever it was, the client gets an answer
    fail(request, error, 'request failed');
  }
}

/** In the client's name. */
function submit(owner: Transmission, request: BlockRequest): Promise<void> {
  request.task = owner.task;
  return owner.backend.submit(request);
}

/** Waits for what did not end at once. */
async function settle(running: Promise<void>, request: NbdRequest, succeeded: (request: NbdRequest) => void, failure: string): Promise<void> {
  try {
    await running;
  } catch (error) {
    return fail(request, error, failure);
  }
  succeeded(request);
}

/** Answers EINVAL. */
export function refuse(request: NbdRequest, message: string): void {
  replyError(request, EINVAL, message);
}

function fail(request: NbdRequest, error: unknown, message: string): void {
  const { owner, offset, bytes } = request;
  owner.negotiated.export.source.onFailure?.({ what: message, offset, bytes, error });
  replyError(request, wireErrorOf(error), message);
}

function replyError(request: NbdRequest, error: number, message: string): void {
  const { owner } = request;
  owner.release(request);
  owner.replies.push(owner.negotiated.structured
    ? new Reply(request, ReplyType.ERROR, error, true, Buffer.from(message))
    : new Reply(request, SIMPLE, error));
}

function succeed(request: NbdRequest): void {
  request.owner.release(request);
  request.owner.replies.push(new Reply(request, SIMPLE, 0));
}

/** One that nothing need be done for but to read: no flush before, no look for holes. */
function isPlainRead({ owner, bytes, flags }: NbdRequest): boolean {
  const sparse = bytes >= SPARSE_BYTES && owner.negotiated.structured && (flags & CommandFlag.DF) === 0;
  return bytes > 0 && !sparse && (flags & CommandFlag.FUA) === 0;
}

function readPlain(request: NbdRequest): void {
  const { owner, offset, bytes, lease } = request;
  const running = submit(owner, makeRequest('read', offset, bytes, lease!.buffer));
  if (running === DONE) sendData(request);
  else void settle(running, request, sendData, READ_FAILED);
}

function sendData(request: NbdRequest): void {
  const { owner, offset, lease } = request;
  const { structured } = owner.negotiated;
  owner.replies.push(new Reply(request, structured ? ReplyType.OFFSET_DATA : SIMPLE, structured ? offset : 0, true, lease!.buffer, lease));
}

async function read(request: NbdRequest): Promise<void> {
  const { owner, bytes, flags } = request;
  if ((flags & CommandFlag.FUA) !== 0 && !await flushed(request, false)) return;
  const { structured } = owner.negotiated;
  if (bytes === 0) owner.replies.push(new Reply(request, structured ? ReplyType.NONE : SIMPLE, 0));
  else if (structured && bytes >= SPARSE_BYTES && (flags & CommandFlag.DF) === 0) await readSparse(request);
  else readPlain(request);
}

interface Piece {
  readonly at: number;
  readonly bytes: number;
  readonly zero: boolean;
}

/** Where the range reads as zeros without being read; null where it falls into too many pieces. */
async function piecesOf({ owner, offset, bytes }: NbdRequest): Promise<Piece[] | null> {
  const pieces: Piece[] = [];
  for (let at = 0; at < bytes;) {
    const status = await owner.backend.blockStatus(offset + at, bytes - at);
    const zero = status.kind !== 'data';
    const last = pieces.at(-1);
    if (last?.zero === zero) pieces[pieces.length - 1] = { ...last, bytes: last.bytes + status.bytes };
    else pieces.push({ at, bytes: status.bytes, zero });
    if (pieces.length > MAX_PIECES) return null;
    at += status.bytes;
  }
  return pieces;
}

/** Holes go out as such, and only what lies between them is read. */
async function readSparse(request: NbdRequest): Promise<void> {
  const { owner, offset, bytes } = request;
  let pieces: Piece[] | null;
  try {
    pieces = await piecesOf(request);
  } catch (error) {
    return fail(request, error, 'unable to check for holes');
  }
  pieces ??= [{ at: 0, bytes, zero: false }];
  const lease = request.lease!;
  const part = (piece: Piece): Uint8Array => piece.bytes === bytes ? lease.buffer : lease.buffer.subarray(piece.at, piece.at + piece.bytes);
  try {
    for (const piece of pieces) {
      if (!piece.zero) await submit(owner, makeRequest('read', offset + piece.at, piece.bytes, part(piece)));
    }
  } catch (error) {
    return fail(request, error, READ_FAILED);
  }
  for (const [index, piece] of pieces.entries()) {
    const last = index === pieces.length - 1;
    const at = offset + piece.at;
    owner.replies.push(piece.zero
      ? new Reply(request, ReplyType.OFFSET_HOLE, at, last, null, last ? lease : null, piece.bytes)
      : new Reply(request, ReplyType.OFFSET_DATA, at, last, part(piece), last ? lease : null));
  }
}

function change(request: NbdRequest): void {
  const { owner, offset, bytes, flags, lease } = request;
  const zeroes = request.type === Command.WRITE_ZEROES;
  let down = (flags & CommandFlag.FUA) !== 0 ? RequestFlag.FUA : 0;
  if (zeroes && (flags & CommandFlag.NO_HOLE) === 0) down += RequestFlag.MAY_UNMAP;
  if (zeroes && (flags & CommandFlag.FAST_ZERO) !== 0) down += RequestFlag.NO_FALLBACK;
  const running = submit(owner, makeRequest(zeroes ? 'write-zeroes' : 'write', offset, bytes, zeroes ? null : lease?.buffer ?? NOTHING, down));
  if (running === DONE) succeed(request);
  else void settle(running, request, succeed, 'writing to file failed');
}

/** True where it went well; a failure has been answered. */
async function flushed(request: NbdRequest, answer: boolean): Promise<boolean> {
  try {
    await submit(request.owner, makeRequest('flush', 0, 0, null));
  } catch (error) {
    fail(request, error, 'flush failed');
    return false;
  }
  if (answer) succeed(request);
  return true;
}

async function trim(request: NbdRequest): Promise<void> {
  try {
    await submit(request.owner, makeRequest('discard', request.offset, request.bytes, null));
  } catch (error) {
    // a trim is a hint: a disk that cannot follow it has not failed
    if (!(error instanceof BlockError) || error.code !== 'NOT_SUPPORTED') return fail(request, error, 'discard failed');
  }
  if ((request.flags & CommandFlag.FUA) !== 0) await flushed(request, true);
  else succeed(request);
}

async function cache(request: NbdRequest): Promise<void> {
  const { owner, offset, bytes } = request;
  try {
    await prefetch(owner.backend, owner.memory, owner.negotiated.export.source.readOnly, offset, bytes);
  } catch (error) {
    return fail(request, error, 'caching data failed');
  }
  succeed(request);
}

async function blockStatus(request: NbdRequest): Promise<void> {
  const { owner, bytes, flags } = request;
  const { contexts, structured } = owner.negotiated;
  if (bytes === 0) return refuse(request, 'need non-zero length');
  if (!structured || contexts.length === 0) return refuse(request, 'CMD_BLOCK_STATUS not negotiated');
  const limit = (flags & CommandFlag.REQ_ONE) !== 0 ? 1 : Math.max(1, Math.floor(MAX_EXTENTS / contexts.length));
  const room = limit * EXTENT_BYTES;
  const lease = await owner.memory.lease(contexts.length * room);
  const bodies: Uint8Array[] = [];
  try {
    for (const [index, { id }] of contexts.entries()) {
      const extents = await describeExtents(request, id, limit);
      bodies.push(extents.encode(lease.buffer.subarray(index * room, (index + 1) * room)));
    }
  } catch (error) {
    lease.release();
    return fail(request, error, "can't get block status");
  }
  for (const [index, body] of bodies.entries()) {
    const last = index === bodies.length - 1;
    owner.replies.push(new Reply(request, ReplyType.BLOCK_STATUS, contexts[index]!.id, last, body, last ? lease : null));
  }
}
