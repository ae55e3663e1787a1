/** What commands say about reading a trace. */
import type { ReadFindings } from '../src/index.js';

/** One line each for damage that was passed over. */
export function warnOfFindings({ skippedBytes, skips }: ReadFindings, warn: (message: string) => void): void {
  if (skips > 0) warn(`${skippedBytes} bytes of the trace are no records (${skips} ${skips === 1 ? 'place' : 'places'}): they are left out`);
}
