/**
 * The page of `trace serve` in Chromium on a trace of 5 million events: how long reading it takes, how long until the first paint after
 * that, and how long each redraw takes, from asking for the view until it is painted.
 *
 *   npm run bench -- trace-web [--requests N] [--json]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Page } from 'playwright-core';
import { firstPaint, openPage, redraw, startBrowser } from '../test/support/browser.js';
import { startQuiesce } from '../test/support/cli.js';
import { makeTable } from '../test/support/io-table.js';
import { writeTrace } from '../test/support/trace-file.js';

const FIRST_PAINT_LIMIT_MS = 2000;
const REDRAW_LIMIT_MS = 200;
/** Four events and a remap each, most of them: 5 million events and more. */
const REQUESTS = 1_000_000;
const SCREEN = 1400;

interface Measured {
  readonly events: number;
  readonly readingMs: number;
  readonly firstPaintMs: number;
  readonly redraws: readonly { readonly what: string; readonly ms: number }[];
  readonly met: boolean;
}

/** Zooms from all of the trace to a few requests, and back; the worst of each kind counts. */
async function redraws(page: Page): Promise<Measured['redraws']> {
  const panels = page.locator('.panels');
  await panels.focus();
  const found: { what: string; ms: number }[] = [];
  const press = async (what: string, key: string): Promise<void> => { found.push({ what, ms: await redraw(page, () => page.keyboard.press(key)) }); };
  for (const what of ['1/2', '1/4', '1/8', '1/16', '1/32', '1/64', '1/128', '1/256']) await press(`zoom to ${what}`, '+');
  await press('pan', 'd');
  await press('all of the trace', 'Home');
  await press('all of the trace again', 'Home');
  return found;
}

async function measure(requests: number): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), 'quiesce-bench-'));
  const browser = await startBrowser();
  try {
    const name = join(folder, 'made');
    const events = writeTrace(name, makeTable(requests));
    const started = performance.now();
    const command = startQuiesce(['trace', 'serve', name]);
    while (!command.stdout().includes('\n')) await new Promise((resolve) => { setTimeout(resolve, 5); });
    const { page } = await openPage(browser, { width: SCREEN, allowed: 'http:' });
    await page.goto(command.stdout().trim());
    await page.getByText('Reading the trace').waitFor();
    await page.locator('h1', { hasText: 'made' }).waitFor({ timeout: 120_000 });
    const readingMs = performance.now() - started;
    const firstPaintMs = await firstPaint(page);
    const all = await redraws(page);
    command.child.kill('SIGTERM');
    await command.done;
    return { events, readingMs, firstPaintMs, redraws: all, met: firstPaintMs < FIRST_PAINT_LIMIT_MS && all.every(({ ms }) => ms < REDRAW_LIMIT_MS) };
  } finally {
    await browser.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({ options: { requests: { type: 'string' }, json: { type: 'boolean' } } });
const measured = await measure(Number(values.requests ?? REQUESTS));
if (values.json === true) console.log(JSON.stringify(measured, null, 2));
else {
  console.log(`${measured.events} events: read in ${measured.readingMs.toFixed(0)} ms, first paint ${measured.firstPaintMs.toFixed(0)} ms after that (limit ${FIRST_PAINT_LIMIT_MS})`);
  for (const { what, ms } of measured.redraws) console.log(`  ${what.padEnd(24)} ${ms.toFixed(0).padStart(5)} ms (limit ${REDRAW_LIMIT_MS})`);
  console.log(measured.met ? 'met' : 'NOT met');
}
process.exitCode = measured.met ? 0 : 1;
