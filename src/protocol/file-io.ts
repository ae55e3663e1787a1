/** Whole reads and writes on a raw descriptor: the callback API, since a FileHandle costs more per call. */
import fs from 'node:fs';
import { constants } from 'node:os';
import { errnoName } from '../base/libc.js';
import type { Ring } from '../base/uring.js';

/** Linux moves at most 2 GiB less a page in one call; a round number below stays aligned for O_DIRECT. */
const MAX_CALL = 0x4000_0000;

/** What a caller makes of a host error, so that no promise has to be chained only to say it better. */
export type Explain = (error: unknown) => Error;

/** Above this a transfer costs so much that the thread pool's share does not count, and its threads copy side by side. */
export const MAX_RING = 64 * 1024;

const { EAGAIN, ECANCELED, EINTR, EINVAL, EOPNOTSUPP } = constants.errno;
/** Results of a request of the ring that has not asked the file for anything. */
const NOT_BEGUN: readonly number[] = [EAGAIN, ECANCELED, EINTR, EINVAL, EOPNOTSUPP];

/** Reads all of `into`; what lies past the end of the file reads as zeros. `alignment` is what O_DIRECT wants (else 1). */
export function readFully(fd: number, into: Uint8Array, position: number, alignment: number, ring: Ring | null, explain: Explain): Promise<void> {
  return new Promise((resolve, fail) => {
    const reject = (error: unknown): void => fail(explain(error));
    let done = 0;
    const step = (): void => {
      fs.read(fd, into, done, Math.min(into.byteLength - done, MAX_CALL), position + done, (error, count) => {
        if (error !== null) return reject(error);
        done += count;
        if (done === into.byteLength) return resolve();
        if (count > 0 && done % alignment === 0) return step();
        into.fill(0, done);
        // only the end of the file makes O_DIRECT stop off its alignment; going on from there would be refused
        if (count === 0) resolve();
        else confirmEnd(fd, position + done, resolve, reject);
      });
    };
    // whatever did not end as wished is done again, and its error told, by the thread pool
    const taken = ring !== null && into.byteLength <= MAX_RING &&
      ring.read(fd, into, position, (moved) => moved === into.byteLength ? resolve() : step());
    if (!taken) step();
  });
}

function confirmEnd(fd: number, end: number, resolve: () => void, reject: (error: unknown) => void): void {
  fs.fstat(fd, (error, stat) => {
    if (error !== null) reject(error);
    else if (stat.size > end) reject(shortTransfer('read', end));
    else resolve();
  });
}

/** Writes all of `from`. */
export function writeFully(fd: number, from: Uint8Array, position: number, ring: Ring | null, explain: Explain): Promise<void> {
  return new Promise((resolve, fail) => {
    const reject = (error: unknown): void => fail(explain(error));
    let done = 0;
    const step = (): void => {
      fs.write(fd, from, done, Math.min(from.byteLength - done, MAX_CALL), position + done, (error, count) => {
        if (error !== null) return reject(error);
        if (count === 0) return reject(shortTransfer('write', position + done));
        done += count;
        if (done === from.byteLength) resolve();
        else step();
      });
    };
    const taken = ring !== null && from.byteLength <= MAX_RING &&
      ring.write(fd, from, position, (moved) => moved === from.byteLength ? resolve() : step());
    if (!taken) step();
  });
}

/**
 * Writes all of `from` and starts an fdatasync behind it, in one step for the kernel; null where that cannot be, and nothing
 * has begun. `written` tells of the write alone. `synced` never rejects before it; it resolves to false where the sync did not
 * begin, and rejects where it failed.
 */
export function writeAndSync(
  fd: number, from: Uint8Array, position: number, ring: Ring, explain: Explain,
): { readonly written: Promise<void>; readonly synced: Promise<boolean> } | null {
  if (from.byteLength > MAX_RING) return null;
  let wrote: (moved: number) => void = () => undefined;
  let ended: (result: number) => void = () => undefined;
  if (!ring.writeAndSync(fd, from, position, (moved) => wrote(moved), (result) => ended(result))) return null;
  const written = new Promise<void>((resolve, reject) => {
    // as ever, the thread pool does again what did not end as wished
    wrote = (moved) => moved === from.byteLength ? resolve() : void writeFully(fd, from, position, null, explain).then(resolve, reject);
  });
  const synced = new Promise<boolean>((resolve, reject) => { ended = (result) => settleSync(result, resolve, reject); });
  return { written, synced };
}

/** What never was a sync is done by the thread pool; an error that the kernel tells once must not be asked for again. */
function settleSync(result: number, resolve: (synced: boolean) => void, reject: (error: unknown) => void): void {
  if (result >= 0) resolve(true);
  else if (NOT_BEGUN.includes(-result)) resolve(false);
  else reject(Object.assign(new Error(`fdatasync: error ${-result}`), { code: errnoName(-result) }));
}

function shortTransfer(call: string, position: number): NodeJS.ErrnoException {
  return Object.assign(new Error(`a ${call} stopped at byte ${position} without an error`), { code: 'EIO' });
}

/** Resolves to true, as syncs do that have taken place. */
export function syncData(fd: number, ring: Ring | null = null): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const step = (): void => fs.fdatasync(fd, (error) => error === null ? resolve(true) : reject(error));
    if (ring?.sync(fd, (result) => settleSync(result, (began) => began ? resolve(true) : step(), reject)) !== true) step();
  });
}

export function truncate(fd: number, bytes: number): Promise<void> {
  return settle((done) => fs.ftruncate(fd, bytes, done));
}

export function closeFd(fd: number): Promise<void> {
  return settle((done) => fs.close(fd, done));
}

function settle(start: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => start((error) => {
    if (error) reject(error);
    else resolve();
  }));
}
