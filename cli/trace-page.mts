import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** The page of a trace; the build puts it beside the bundle that this becomes a part of. */
export function tracePage(): Promise<string> {
  return readFile(path.join(import.meta.dirname, 'trace-page.html'), 'utf8');
}
