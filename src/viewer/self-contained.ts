/** `trace report --html`: the page with its trace in it. It opens from a file, and asks no network for anything. */
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { packTrace } from './carry.js';
import type { LoadedTrace } from './load.js';

/** `page` is what the build made, the same that a server gives. */
export async function selfContainedPage(page: string, { model, ...facts }: LoadedTrace): Promise<string> {
  const packed = await promisify(deflate)(packTrace(model.table, facts));
  const carried = `<script type="application/octet-stream" id="trace">${packed.toString('base64')}</script>\n`;
  const policy = `<meta http-equiv="content-security-policy" content="${contentPolicy(page)}">\n`;
  return page.replace('<head>\n', () => `<head>\n${policy}`).replace('<script>', () => `${carried}<script>`);
}

/** Nothing but the page itself: its script and style by their hashes, and nothing from anywhere else. */
export function contentPolicy(page: string): string {
  const hashes = (tag: string): string => [...page.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))]
    .map(([, text]) => `'sha256-${createHash('sha256').update(text!).digest('base64')}'`).join(' ');
  return `default-src 'none'; script-src ${hashes('script')}; style-src ${hashes('style')}; img-src data:; base-uri 'none'; form-action 'none'`;
}
