/** The page of `trace serve` in Chromium, on a trace of 5 million events: first paint after reading it, and redraws from a zoom to its being painted. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { firstPaint, openPage, redraw, startBrowser } from '../../test/support/browser.js';
import { makeTable } from '../../test/support/io-table.js';
import { launcher, start } from '../../test/support/run.js';
import { writeTrace } from '../../test/support/trace-file.js';
import type { TraceBench } from './trace-bench.js';
import { Series } from './series.js';

const FIRST_PAINT_LIMIT_MS = 2000;
const REDRAW_LIMIT_MS = 200;
/** Five events each and a remap for three of four: 5.2 million events. */
const REQUESTS = 900_000;
const SCREEN = 1400;

/** From all of the trace to a few requests, and on from there: no window comes twice. */
async function zoomIn(page: Page): Promise<number[]> {
  await page.locator('.panels').focus();
  const found: number[] = [];
  for (let times = 0; times < 9; times++) found.push(await redraw(page, () => page.keyboard.press('+')));
  found.push(await redraw(page, () => page.keyboard.press('d')));
  return found;
}

export const benchWeb: TraceBench = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'quiesce-bench-'));
  const browser = await startBrowser();
  const command = { end: async (): Promise<void> => undefined };
  try {
    const name = join(folder, 'made');
    const events = writeTrace(name, makeTable(REQUESTS));
    const started = performance.now();
    const child = start(launcher, ['trace', 'serve', name]);
    command.end = async () => {
      child.kill('SIGTERM');
      await once(child, 'close');
    };
    const [printed] = await once(child.stdout!, 'data') as [Buffer];
    const { page } = await openPage(browser, { width: SCREEN, allowed: 'http:' });
    await page.goto(printed.toString().trim());
    await page.locator('progress').waitFor();
    await page.locator('h1', { hasText: 'made' }).waitFor({ timeout: 120_000 });
    const reading = new Series('quiesce');
    reading.add((performance.now() - started) / 1000, events);
    const paint = await firstPaint(page);
    const zooms = await zoomIn(page);
    const target = (what: string, value: number, bound: number): { what: string; value: number; bound: number; atMost: boolean; unit: string } => ({ what, value, bound, atMost: true, unit: ' ms' });
    return {
      rows: [{ what: `read and pair ${(events / 1e6).toFixed(1)}M for the page`, series: [reading] }],
      targets: [target('first paint of the page, once it is read', paint, FIRST_PAINT_LIMIT_MS), target('slowest of 10 redraws of the page', Math.max(...zooms), REDRAW_LIMIT_MS)],
    };
  } finally {
    await command.end();
    await browser.close();
    rmSync(folder, { recursive: true, force: true });
  }
};
