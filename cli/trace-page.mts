import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { selfContainedPage, wrapHostError, type LoadedTrace } from '../src/index.js';

/** The page of a trace; the build puts it beside the bundle that this becomes a part of. */
export function tracePage(): Promise<string> {
  return readFile(path.join(import.meta.dirname, 'trace-page.html'), 'utf8');
}

/** With the trace in it. BlockError: it cannot be written there. */
export async function writeTracePage(to: string, trace: LoadedTrace): Promise<void> {
  const text = await selfContainedPage(await tracePage(), trace);
  await writeFile(to, text).catch((error: unknown) => { throw wrapHostError(error, `cannot write the page '${to}'`); });
}
