/**
 * Goes over a disk from its start to its end, piece by piece, with several pieces in flight. They are accounted in their
 * order, so that progress, errors and pauses are what they would be with one piece after the other.
 */
import { BufferPool } from '../base/buffer-pool.js';
import { KiB, MiB } from '../base/bytes.js';
import type { BlockJob } from './block-job.js';
import type { JobContext } from './job.js';

export const PIECE_BYTES = 512 * KiB;
/** With a speed limit it is one. */
const PIECES_IN_FLIGHT = 4;
/** Most of what a piece costs is to arrange it: once so many went well, and without a speed limit, they are so many times as large. */
const PIECES_THAT_WENT_WELL = 32;
const STRIDE = 4;
const PIECES_PER_TURN = 64;
/** Where nothing is to be done, nothing needs memory: it is passed over in larger steps. */
const LOOK_BYTES = 1024 * MiB;

export interface Piece {
  readonly offset: number;
  readonly bytes: number;
  /** False: nothing is to be done there. */
  readonly copy: boolean;
}

export interface PieceWork<P extends Piece> {
  /** What the first bytes of a range are. */
  look(offset: number, bytes: number): Promise<P>;
  copy(piece: P, buffer: Uint8Array): Promise<void>;
  /** What becomes of a piece after an error; throws where that ends the job. */
  failed(error: unknown): 'again' | 'skip';
}

interface InFlight {
  readonly offset: number;
  readonly bytes: number;
  /** Resolves to its error, or undefined. */
  readonly done: Promise<unknown>;
}

export class PieceRun<P extends Piece> {
  readonly #self: BlockJob;
  readonly #context: JobContext;
  readonly #length: number;
  readonly #work: PieceWork<P>;
  readonly #pool = new BufferPool(PIECES_IN_FLIGHT * STRIDE * PIECE_BYTES);
  readonly #inFlight: InFlight[] = [];
  #delayMs = 0;
  #wentWell = 0;

  constructor(self: BlockJob, context: JobContext, length: number, work: PieceWork<P>) {
    this.#self = self;
    this.#context = context;
    this.#length = length;
    this.#work = work;
  }

  async run(): Promise<void> {
    this.#context.progress(0, this.#length);
    try {
      let turns = 0;
      for (let offset = 0; offset < this.#length;) {
        while (this.#inFlight.length >= (this.#self.speed > 0 ? 1 : PIECES_IN_FLIGHT)) await this.#retire();
        await this.#mayGoOn();
        if (++turns % PIECES_PER_TURN === 0) await new Promise<void>((resolve) => { setImmediate(resolve); });
        offset += await this.#begin(offset);
      }
      while (this.#inFlight.length > 0) await this.#retire();
    } finally {
      await this.settled();
    }
  }

  /** Resolves when nothing is under way; errors are told when their turn comes. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight.map(({ done }) => done));
  }

  /** Waits for the speed limit, and for the end of a pause; throws where the job is cancelled. */
  async #mayGoOn(): Promise<void> {
    const ms = this.#delayMs;
    this.#delayMs = 0;
    // a resume, and a higher speed, end the sleep: as with QEMU the next piece follows at once
    await (ms > 0 ? this.#context.sleep(ms) : this.#context.pausePoint());
  }

  /** Returns for how many bytes. */
  async #begin(offset: number): Promise<number> {
    const large = this.#wentWell >= PIECES_THAT_WENT_WELL && this.#self.speed === 0;
    const piece = await this.#look(offset, Math.min(LOOK_BYTES, this.#length - offset), large ? STRIDE * PIECE_BYTES : PIECE_BYTES);
    if (piece instanceof LookFailed) {
      const bytes = Math.min(PIECE_BYTES, this.#length - offset);
      this.#inFlight.push({ offset, bytes, done: Promise.resolve(piece.error) });
      return bytes;
    }
    if (piece.copy) this.#delayMs = this.#self.spend(piece.bytes);
    this.#inFlight.push({ offset, bytes: piece.bytes, done: piece.copy ? this.#copy(piece) : NOTHING });
    return piece.bytes;
  }

  /** `most`: of what is to be copied. */
  async #look(offset: number, bytes: number, most = PIECE_BYTES): Promise<P | LookFailed> {
    try {
      const piece = await this.#work.look(offset, bytes);
      return piece.copy && piece.bytes > most ? { ...piece, bytes: most } : piece;
    } catch (error) {
      return new LookFailed(error);
    }
  }

  /** Resolves to the error, or undefined. */
  async #copy(piece: P): Promise<unknown> {
    const lease = await this.#pool.lease(piece.bytes);
    try {
      await this.#work.copy(piece, lease.buffer);
      return undefined;
    } catch (error) {
      return error ?? new Error('unknown error');
    } finally {
      lease.release();
    }
  }

  /** The oldest piece: waits for it, and deals with its error. */
  async #retire(): Promise<void> {
    const { offset, bytes, done } = this.#inFlight[0]!;
    const error = await done;
    if (error === undefined) this.#wentWell += done === NOTHING ? 0 : 1;
    else await this.#mend(error, offset, bytes);
    this.#inFlight.shift();
    this.#context.progress(offset + bytes, this.#length);
  }

  /** Until the range is done, or need not be; in pieces of the usual size from now on. */
  async #mend(first: unknown, offset: number, bytes: number): Promise<void> {
    this.#wentWell = -Infinity;
    await this.settled();
    const end = offset + bytes;
    let error: unknown = first;
    let at = offset;
    // which part of a large piece it is that fails now
    while (bytes > PIECE_BYTES && at < end) {
      const found = await this.#again(at, Math.min(end, at + PIECE_BYTES));
      if (found.error !== undefined) {
        error = found.error;
        break;
      }
      at = found.at;
    }
    // an error that was there only once counts for the first part
    for (at = at < end ? at : offset; at < end; at += PIECE_BYTES) {
      if (at > offset) this.#context.progress(at, this.#length);
      await this.#mendPiece(error, at, Math.min(end, at + PIECE_BYTES));
      error = undefined;
    }
  }

  /** One of the usual size. */
  async #mendPiece(first: unknown, offset: number, end: number): Promise<void> {
    let error = first;
    while (offset < end) {
      if (error !== undefined) {
        if (this.#work.failed(error) === 'skip') return;
        // those in flight have ended: an error that stays must not keep the processor busy
        await this.#context.sleep(0);
      }
      ({ error, at: offset } = await this.#again(offset, end));
    }
  }

  /** Looks at what comes first in a range once more, and copies it: up to where it got, or with the error. */
  async #again(offset: number, end: number): Promise<{ readonly at: number; readonly error: unknown }> {
    const piece = await this.#look(offset, end - offset);
    const error = piece instanceof LookFailed ? piece.error : piece.copy ? await this.#copy(piece) : undefined;
    return { at: piece instanceof LookFailed || error !== undefined ? offset : offset + piece.bytes, error };
  }
}

class LookFailed {
  readonly error: unknown;
  constructor(error: unknown) { this.error = error; }
}

const NOTHING: Promise<unknown> = Promise.resolve(undefined);
