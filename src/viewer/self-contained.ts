/** `trace report --html`: the page with its trace in it. It opens from a file, and asks no network for anything. */
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { overviewOf } from './answers.js';
import { packTrace } from './carry.js';
import type { LoadedTrace } from './load.js';
import { prepareViews, reduce } from './prepared.js';

/** Such a page has this many bytes at most: about two million requests fit as they are. */
const MAX_PAGE_BYTES = 20_000_000;
/** Where they do not: requests that are carried all the same, about. */
const KEPT_REQUESTS = 200_000;

/** `page` is what the build made, the same that a server gives. */
export async function selfContainedPage(page: string, trace: LoadedTrace, maxBytes = MAX_PAGE_BYTES): Promise<string> {
  const room = Math.floor(((maxBytes - page.length) * 3) / 4) - 2000;
  const whole = await packed(packTrace(trace.model.table, trace));
  const carried = whole.length <= room ? whole : await packed(reducedTrace(trace, room));
  const data = `<script type="application/octet-stream" id="trace">${carried.toString('base64')}</script>\n`;
  const policy = `<meta http-equiv="content-security-policy" content="${contentPolicy(page)}">\n`;
  return page.replace('<head>\n', () => `<head>\n${policy}`).replace('<script>', () => `${data}<script>`);
}

const packed = promisify<Uint8Array, Buffer>(deflate);

/** Half of the room for requests at most, the rest for views. */
function reducedTrace({ model, ...told }: LoadedTrace, room: number): Uint8Array {
  const requests = Math.min(KEPT_REQUESTS, Math.floor(room / 40));
  const remark = `too large to be carried whole: windows and layers are those that were made ahead, and ${requests} requests; 'quiesce trace serve' shows all`;
  const { table, facts } = reduce(model, { ...told, remarks: [...told.remarks, remark] }, requests);
  const overview = overviewOf(model, facts);
  return packTrace(table, facts, { overview, views: prepareViews(model, facts.findings, room / 2) });
}

/** Nothing but the page itself: its script and style by their hashes, and nothing from anywhere else. */
export function contentPolicy(page: string): string {
  const hashes = (tag: string): string => [...page.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))]
    .map(([, text]) => `'sha256-${createHash('sha256').update(text!).digest('base64')}'`).join(' ');
  return `default-src 'none'; script-src ${hashes('script')}; style-src ${hashes('style')}; img-src data:; base-uri 'none'; form-action 'none'`;
}
