/** Cuts write-zeroes and discard to what a driver says it takes: whole units, and not too many of them at once. */
import { alignDown, alignUp } from '../base/bytes.js';
import { makePart, type BlockRequest } from './request.js';

interface DeallocationPart {
  readonly part: BlockRequest;
  /** False for what is left before the first whole unit and after the last one. */
  readonly whole: boolean;
}

/** In order, without gaps. `most` is rounded down to whole units, but never to none. */
export function* deallocationParts(request: BlockRequest, unit: number, most: number): Generator<DeallocationPart> {
  const end = request.offset + request.bytes;
  const firstWhole = Math.min(alignUp(request.offset, unit), end);
  const lastWhole = Math.max(alignDown(end, unit), firstWhole);
  const step = most === Infinity ? Infinity : Math.max(alignDown(most, unit), unit);
  const cut = (from: number, to: number): BlockRequest => from === request.offset && to === end
    ? request
    : makePart(request, request.op, from, to - from, null, request.flags, request.ioClass);
  if (firstWhole > request.offset) yield { part: cut(request.offset, firstWhole), whole: false };
  for (let at = firstWhole; at < lastWhole;) {
    const stop = Math.min(at + step, lastWhole);
    yield { part: cut(at, stop), whole: true };
    at = stop;
  }
  if (lastWhole < end) yield { part: cut(lastWhole, end), whole: false };
}
