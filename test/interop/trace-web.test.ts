/** The page of `trace serve` and of a self-contained report, in a real browser. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { Browser, Page } from 'playwright-core';
import { loadTrace, selfContainedPage, TraceServer, type LoadedTrace } from '../../src/index.js';
import { firstPaint, openPage, redraw, startBrowser, type OpenPage } from '../support/browser.js';
import { startQuiesce, type RunningCommand } from '../support/cli.js';
import { HOST, makeTable } from '../support/io-table.js';
import { peers } from '../support/peers.js';
import { launcher, repository, run, runOk } from '../support/run.js';
import { writeTrace } from '../support/trace-file.js';

/** Requests; the benchmark opens 1.3 million. */
const REQUESTS = 40_000;
/** The browser itself may need a while to start. */
const LIMIT_MS = 120_000;
const FINDING = {
  severity: 'critical', title: 'Made-up finding', text: 'It is <b>here</b>.', cure: 'Look there.', region: { from: 4e9, to: 5e9 }, devices: [HOST], evidence: [17_000],
} as const;

const page = readFileSync(join(repository, 'dist', 'cli', 'trace-page.html'), 'utf8');
let folder: string;
let trace: LoadedTrace;
let browser: Browser;
const servers: TraceServer[] = [];
const pages: OpenPage[] = [];
let command: RunningCommand | undefined;

peers('chromium')('a trace in the browser', () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'quiesce-test-'));
    writeTrace(join(folder, 'made'), makeTable(REQUESTS));
    trace = { ...await loadTrace(join(folder, 'made')), findings: [FINDING] };
    browser = await startBrowser();
  }, LIMIT_MS);
  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(async () => {
    for (const opened of pages.splice(0)) await opened.page.close();
    for (const server of servers.splice(0)) await server.close();
    command?.child.kill('SIGTERM');
    await command?.done;
    command = undefined;
  });

  const opened = async (url: string, options: { scheme?: 'dark' | 'light'; width?: number } = {}): Promise<OpenPage> => {
    const one = await openPage(browser, { ...options, allowed: url });
    pages.push(one);
    await one.page.goto(url);
    return one;
  };
  const served = async (options: { scheme?: 'dark' | 'light'; width?: number } = {}): Promise<OpenPage> => {
    const server = await TraceServer.start({ page, host: '127.0.0.1', port: 0, load: () => Promise.resolve(trace) });
    servers.push(server);
    const one = await opened(server.url, options);
    await firstPaint(one.page);
    return one;
  };
  const shownSpan = (one: Page): Promise<string> => one.locator('output[aria-label="Window shown"]').innerText();
  const centre = async (one: Page, selector: string): Promise<{ x: number; y: number }> => {
    const box = (await one.locator(selector).boundingBox())!;
    return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  };

  test('the command prints an address; the page shows all panels, and asks nothing of anybody else', async () => {
    const bytes = statSync(join(folder, 'made.blktrace.0')).size;
    command = startQuiesce(['trace', 'serve', join(folder, 'made')]);
    const url = await address(command);
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/);
    const { page: shown, problems } = await opened(url);
    // generous: the benchmark measures
    expect(await firstPaint(shown)).toBeLessThan(20_000);
    expect(await shown.locator('h1').innerText()).toBe('made');
    expect(await shown.locator('header.top').innerText()).toMatch(/40 000 requests in 2\d\d \d\d\d records, 10 s/);
    for (const panel of ['scatter', 'throughput', 'iops', 'latency', 'depth', 'shapes']) expect(await shown.locator(`[data-panel="${panel}"] canvas`).first().isVisible()).toBe(true);
    expect(await shown.locator('[data-panel="latency"] [role=img]').getAttribute('aria-label')).toMatch(/half of the requests took less than \d/);
    expect(problems).toEqual([]);
    const wrong = await fetch(url.replace(/.{4}\/$/, 'AAAA/'));
    expect(wrong.status).toBe(403);
    // `--trace` of other commands writes a file by that name; this one reads it
    expect(statSync(join(folder, 'made.blktrace.0')).size).toBe(bytes);
  }, LIMIT_MS);

  test('a stream is shown as it comes', async () => {
    const bytes = readFileSync(join(folder, 'made.blktrace.0'));
    command = startQuiesce(['trace', 'serve', '-']);
    const half = Math.floor(bytes.length / 2);
    command.child.stdin!.write(bytes.subarray(0, half));
    const { page: shown, problems } = await opened(await address(command));
    await shown.locator('header.top', { hasText: /[12]\d \d\d\d requests in 1\d\d \d\d\d records, [45]\.?\d* s/ }).waitFor();
    command.child.stdin!.end(bytes.subarray(half));
    // the window was all of it, and goes along
    await shown.locator('header.top', { hasText: /40 000 requests in 2\d\d \d\d\d records, 10 s/ }).waitFor();
    await shown.locator('output[aria-label="Window shown"]', { hasText: /^0\.0+ s – (?:9\.9|10\.0)\d* s$/ }).waitFor();
    expect(problems).toEqual([]);
  }, LIMIT_MS);

  test('progress is shown while the trace is read', async () => {
    let tell: (done: number) => void = () => undefined;
    let finish: (trace: LoadedTrace) => void = () => undefined;
    const server = await TraceServer.start({
      page, host: '127.0.0.1', port: 0, load: (progress) => {
        tell = (done) => progress({ done, total: 900, unit: 'records' });
        return new Promise((resolve) => { finish = resolve; });
      },
    });
    servers.push(server);
    const { page: shown } = await opened(server.url);
    tell(300);
    await shown.getByText('Reading the trace: 300 of 900 records').waitFor();
    expect(await shown.locator('progress').evaluate((bar) => (bar as unknown as { value: number }).value)).toBe(300);
    finish(trace);
    await firstPaint(shown);
  }, LIMIT_MS);

  test('a drag zooms, the wheel too, and a click on a request shows its waterfall across the layers', async () => {
    const { page: shown, problems } = await served();
    const whole = await shownSpan(shown);
    const { x, y } = await centre(shown, '[data-panel="scatter"] canvas');
    const drag = async (): Promise<void> => {
      await shown.mouse.move(x - 3, y);
      await shown.mouse.down();
      await shown.mouse.move(x + 3, y + 5, { steps: 3 });
      await shown.mouse.move(x + 9, y + 5);
      await shown.mouse.up();
    };
    expect(await redraw(shown, drag)).toBeLessThan(10_000);
    const zoomed = await shownSpan(shown);
    expect(zoomed).not.toBe(whole);
    for (let turns = 0; turns < 12 && await shown.locator('canvas[data-shown="requests"]').count() === 0; turns++) await redraw(shown, () => shown.mouse.wheel(0, -400));
    // a line of the list and a click in the picture lead to the same kind of thing
    await shown.locator('[data-panel="events"] tbody tr').first().click();
    await shown.locator('[data-panel="request"] .waterfall button').first().waitFor();
    expect(await shown.locator('[data-panel="request"]').innerText()).toMatch(/D → C/);
    await shown.keyboard.press('Escape');
    await shown.mouse.click(x, y);
    await shown.locator('[data-panel="request"] .waterfall [aria-pressed="true"]').waitFor();
    // up to the guest's request, which has three below it
    await shown.locator('[data-panel="request"] .waterfall button', { hasText: '4000,0' }).first().click();
    await shown.getByText('Waterfall of 4 requests').waitFor();
    expect(await shown.locator('[data-panel="request"] .waterfall button').allInnerTexts()).toEqual(['4000,0', '4000,1', '4000,3', '4000,2'].map((text) => expect.stringContaining(text)));
    expect(problems).toEqual([]);
  }, LIMIT_MS);

  test('a finding leads to its region and its evidence', async () => {
    const { page: shown, problems } = await served();
    const finding = shown.getByRole('button', { name: /Made-up finding/ });
    expect(await finding.innerText()).toContain('It is <b>here</b>.');
    await redraw(shown, () => finding.click());
    expect(await shownSpan(shown)).toBe('3.92 s – 5.08 s');
    const region = (await shown.locator('.over .region').boundingBox())!;
    const panels = (await shown.locator('.panels > .over').boundingBox())!;
    expect([(region.x - panels.x) / panels.width, region.width / panels.width].map((share) => Math.round(share * 100))).toEqual([7, 86]);
    await shown.locator('[data-panel="request"] .waterfall').waitFor();
    expect(await finding.getAttribute('aria-pressed')).toBe('true');
    expect(problems).toEqual([]);
  }, LIMIT_MS);

  test('everything is reached by keys', async () => {
    const { page: shown } = await served();
    const panels = shown.locator('.panels');
    await panels.focus();
    const whole = await shownSpan(shown);
    await redraw(shown, () => shown.keyboard.press('+'));
    const zoomed = await shownSpan(shown);
    expect(zoomed).not.toBe(whole);
    await redraw(shown, () => shown.keyboard.press('d'));
    expect(await shownSpan(shown)).not.toBe(zoomed);
    await redraw(shown, () => shown.keyboard.press('Home'));
    expect(await shownSpan(shown)).toBe(whole);
    for (const key of ['b', 'Shift+ArrowRight', 'Shift+ArrowRight', 'ArrowLeft']) await shown.keyboard.press(key);
    await redraw(shown, () => shown.keyboard.press('Enter'));
    expect(await shownSpan(shown)).toBe('5.00 s – 6.90 s');
    await shown.keyboard.press('Enter');
    await shown.locator('[data-panel="request"] .waterfall').waitFor();
    await redraw(shown, () => shown.keyboard.press('n'));
    expect(await shownSpan(shown)).toBe('3.92 s – 5.08 s');
    await shown.getByRole('button', { name: /Made-up finding/ }).focus();
    await redraw(shown, () => shown.keyboard.press('Enter'));
    // one line of the list is where Tab comes in, arrows go on from there
    const lines = shown.locator('[data-panel="events"] tbody tr');
    await lines.filter({ hasText: /3\.92\d{7}/ }).first().waitFor();
    await shown.locator('[data-panel="events"] tbody tr[tabindex="0"]').focus();
    await shown.keyboard.press('Home');
    await shown.keyboard.press('ArrowDown');
    await shown.keyboard.press('Enter');
    const row = await lines.nth(1).getAttribute('data-row');
    await shown.locator(`[data-panel="events"] tr[data-row="${row}"][aria-selected="true"]`).first().waitFor();
  }, LIMIT_MS);

  test('dark and light follow the system and the switch, and words can be read in both', async () => {
    const { page: shown } = await served({ scheme: 'dark', width: 1024 });
    const contrast = (): Promise<number> => shown.evaluate<number>(CONTRAST);
    expect(await shown.locator('html').getAttribute('data-theme')).toBe('dark');
    expect(await contrast()).toBeGreaterThan(7);
    await shown.getByRole('button', { name: 'switch between dark and light' }).click();
    expect(await shown.locator('html').getAttribute('data-theme')).toBe('light');
    expect(await contrast()).toBeGreaterThan(7);
    // nothing hangs over the edge of a small screen
    expect(await shown.evaluate<number>('document.documentElement.scrollWidth')).toBeLessThanOrEqual(1024);
  }, LIMIT_MS);

  test('layers, kinds and processes are chosen, and the panels follow', async () => {
    const { page: shown } = await served();
    const summary = (): Promise<string | null> => shown.locator('[data-panel="iops"] [role=img]').getAttribute('aria-label');
    const before = await summary();
    expect(before).toMatch(/read .*write /);
    await redraw(shown, () => shown.getByRole('button', { name: 'write', exact: true }).click());
    expect(await summary()).not.toMatch(/write/);
    await redraw(shown, () => shown.locator('#choose-process').selectOption({ index: 2 }));
    await redraw(shown, () => shown.locator('#choose-colour').selectOption('process'));
    expect(await shown.locator('[data-panel="scatter"] .legend').innerText()).toMatch(/\(10\d\)/);
    await redraw(shown, () => shown.getByRole('button', { name: '4000,0' }).click());
    await redraw(shown, () => shown.locator('#choose-latency').selectOption('d2c'));
  }, LIMIT_MS);

  test.each([['whole', 20_000_000], ['in parts, where it is too large', 350_000]])('a self-contained page opens from a file, without network: its trace %s', async (_, most) => {
    const file = join(folder, 'report.html');
    const text = await selfContainedPage(page, trace, most);
    expect(text.length).toBeLessThan(most);
    writeFileSync(file, text);
    const one = await openPage(browser, { allowed: pathToFileURL(file).href });
    pages.push(one);
    await one.page.context().setOffline(true);
    await one.page.goto(pathToFileURL(file).href);
    await firstPaint(one.page);
    await redraw(one.page, () => one.page.getByRole('button', { name: /Made-up finding/ }).click());
    await one.page.locator('[data-panel="request"] .waterfall button').first().waitFor();
    await one.page.locator('[data-panel="events"] tbody tr').first().waitFor();
    expect(await shownSpan(one.page)).toBe('3.92 s – 5.08 s');
    expect(await one.page.getByText('too large to be carried whole').count()).toBe(most < 2_000_000 ? 1 : 0);
    expect(one.problems).toEqual([]);
  }, LIMIT_MS);
});

peers('chromium')('the page of a report', () => {
  test('names what is wrong with a real capture first, and leads to it', async () => {
    const made = mkdtempSync(join(tmpdir(), 'quiesce-test-'));
    const own = await startBrowser();
    try {
      const file = join(made, 'rmw.html');
      const said = await runOk(launcher, ['trace', 'report', join(repository, 'fixtures', 'trace', 'qemuio-rmw'), '--html', file]);
      const { page: shown, problems } = await openPage(own, { allowed: pathToFileURL(file).href });
      await shown.goto(pathToFileURL(file).href);
      await firstPaint(shown);
      const first = shown.locator('.findings button').first();
      const title = await first.locator('strong').innerText();
      expect(await first.innerText()).toContain('critical');
      // what the text says
      expect(said).toContain(title);
      await first.click();
      await shown.locator('[data-panel="request"] .waterfall').waitFor();
      expect(await shown.locator('.over .region').isVisible()).toBe(true);
      expect(problems).toEqual([]);
    } finally {
      await own.close();
      rmSync(made, { recursive: true, force: true });
    }
  }, LIMIT_MS);

  test('needs a trace that can be read twice, and a place to be written to', async () => {
    const refused = await run(launcher, ['trace', 'report', '-', '--html', 'x.html'], { input: '' });
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('--html reads the trace a second time')]);
    const nowhere = await run(launcher, ['trace', 'report', join(repository, 'fixtures', 'trace', 'qemuio-rmw'), '--html', '/no/such/folder/x.html']);
    expect([nowhere.code, nowhere.stderr]).toEqual([1, expect.stringMatching(/^quiesce: cannot write the page '\/no\/such\/folder\/x\.html'.*\n$/)]);
  }, LIMIT_MS);
});

/** What it printed first. */
async function address({ stdout }: RunningCommand): Promise<string> {
  while (!stdout().includes('\n')) await new Promise((resolve) => { setTimeout(resolve, 20); });
  return stdout().trim();
}

/** Between words and the ground, as WCAG counts it. */
const CONTRAST = `(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/\\d+/g).map((part) => { const c = part / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(document.body);
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()`;
