/**
 * What an I/O returns that ended before the call returned: data in memory, a hit in the page cache, zeros. Whoever
 * passes promises on can compare with it and do at once what comes afterwards, without a turn through the microtask
 * queue. All others may just await it.
 */
export const DONE: Promise<void> = Promise.resolve();

/** What a function that is not `async` returns in place of an error that it met before its first await. */
export function rejected(error: unknown): Promise<never> {
  return Promise.reject(error);
}
