import { answer } from '../questions.js';
import { unpackTrace } from '../carry.js';
import { TraceModel } from '../model.js';
import { sourceOf, type Source } from './source.js';

/** The trace that this page carries in itself, null for a page that a server gave. */
export async function carriedSource(): Promise<Source | null> {
  const carried = document.querySelector('#trace')?.textContent;
  if (carried === undefined || carried === null) return null;
  const { table, facts } = unpackTrace(await inflate(carried));
  const model = new TraceModel(table);
  const done = table.count;
  return sourceOf(
    // what a server would send as a copy
    (question) => Promise.resolve(answer(model, facts, question)),
    () => Promise.resolve({ phase: 'ready', done, total: done, unit: 'records' }),
  );
}

/** Of base64 of zlib's format. */
async function inflate(text: string): Promise<ArrayBuffer> {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place++) bytes[place] = binary.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}
