/** A page in Debian's Chromium, without a screen. */
import { chromium, type Browser, type Page } from 'playwright-core';
import { findOnPath } from './on-path.js';

export interface OpenPage {
  readonly page: Page;
  /** What went wrong in it: errors, messages of the console, and everything it asked of another place than `allowed`. */
  readonly problems: readonly string[];
}

export async function startBrowser(): Promise<Browser> {
  const executablePath = findOnPath('chromium');
  if (executablePath === undefined) throw new Error('there is no chromium');
  // Chromium's sandbox refuses to run for root, as whom CI runs
  return chromium.launch({ executablePath, chromiumSandbox: process.getuid?.() !== 0, args: ['--disable-gpu', '--disable-dev-shm-usage'] });
}

export async function openPage(browser: Browser, options: { scheme?: 'dark' | 'light'; width?: number; allowed: string }): Promise<OpenPage> {
  const page = await browser.newPage({ viewport: { width: options.width ?? 1400, height: 1200 }, colorScheme: options.scheme ?? 'light' });
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => { if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text()); });
  page.on('request', (request) => { if (!request.url().startsWith(options.allowed) && !request.url().startsWith('data:')) problems.push(`asks for ${request.url()}`); });
  return { page, problems };
}

/** Its policy forbids text to be run as code, so what a test asks of the page are its attributes. */
async function attribute(page: Page, name: string): Promise<string> {
  return await page.locator('html').getAttribute(name) ?? '';
}

/** Once the panels are painted for the first time; ms from the trace being read to that. */
export async function firstPaint(page: Page): Promise<number> {
  await page.locator('html[data-first-paint-ms]').waitFor({ state: 'attached', timeout: 60_000 });
  return Number(await attribute(page, 'data-first-paint-ms'));
}

/** Does something that brings a new view, and waits until it is painted; ms from the page asking for it to that. */
export async function redraw(page: Page, does: () => Promise<unknown>): Promise<number> {
  const before = await attribute(page, 'data-redraws');
  await does();
  await page.locator(`html:not([data-redraws="${before}"])`).waitFor({ state: 'attached', timeout: 60_000 });
  return Number(await attribute(page, 'data-redraw-ms'));
}
