import { sourceOf, type Source } from './source.js';

/** The trace that this page carries in itself, null for a page that a server gave. */
export async function carriedSource(): Promise<Source | null> {
  await Promise.resolve();
  void sourceOf;
  return null;
}
