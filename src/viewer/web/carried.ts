import type { PreparedView, View } from '../answers.js';
import { unpackTrace } from '../carry.js';
import { TraceModel } from '../model.js';
import { answer } from '../questions.js';
import type { TimeSpan } from '../window.js';
import { sourceOf, type Source } from './source.js';

/** The trace that this page carries in itself, null for a page that a server gave. */
export async function carriedSource(): Promise<Source | null> {
  const carried = document.querySelector('#trace')?.textContent;
  if (carried === undefined || carried === null) return null;
  const { table, facts, prepared } = unpackTrace(await inflate(carried));
  const model = new TraceModel(table);
  const done = table.count;
  return sourceOf((question) => {
    if (prepared !== null && question.ask === 'overview') return Promise.resolve(prepared.overview);
    if (prepared !== null && question.ask === 'view') return Promise.resolve(findPrepared(prepared.views, question, question.filter.devices));
    return Promise.resolve(answer(model, facts, question));
  }, () => Promise.resolve({ phase: 'ready', done, total: done, unit: 'records' }));
}

/** The one that shows most of what is asked for: the shortest that all of the window lies in, of these layers where there is one. */
function findPrepared(views: readonly PreparedView[], { from, to }: TimeSpan, devices: readonly number[] | undefined): View {
  const sameDevices = (view: PreparedView): boolean => devices !== undefined && view.devices.length === devices.length && view.devices.every((device) => devices.includes(device));
  // a region's edges were calculated twice: here and in the page
  const slack = (to - from) * 0.01;
  const holds = ({ view }: PreparedView): boolean => view.from <= from + slack && view.to >= to - slack;
  const candidates = views.filter((view) => holds(view) && sameDevices(view));
  const all = candidates.length > 0 ? candidates : views.filter(holds);
  const shortest = all.reduce<PreparedView | null>((best, view) => (best === null || view.view.to - view.view.from < best.view.to - best.view.from ? view : best), null);
  return (shortest ?? views[0]!).view;
}

/** Of base64 of zlib's format. */
async function inflate(text: string): Promise<ArrayBuffer> {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place++) bytes[place] = binary.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}
