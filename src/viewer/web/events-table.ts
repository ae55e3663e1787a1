import type { EventLine } from '../answers.js';
import { h } from './dom.js';
import { blktraceTime } from './numbers.js';
import type { Events } from './source.js';
import type { Stage } from './stage.js';

const REQUESTS = 60;
/** A drag of the window asks for a list once it stops. */
const SETTLE_MS = 150;

/** What happened in the window, as blkparse lists it. Each line leads to its request. */
export function eventsTable(stage: Stage): HTMLElement {
  const body = h('tbody', { 'aria-label': 'Events' });
  const more = h('button', { type: 'button', disabled: true, onclick: () => void fill(next ?? stage.look.span.from) }, 'further');
  const back = h('button', { type: 'button', onclick: () => void fill(stage.look.span.from) }, 'from the start of the window');
  let next: number | null = null;
  let abort: AbortController | null = null;
  const fill = async (from: number): Promise<void> => {
    abort?.abort();
    const own = new AbortController();
    abort = own;
    const events = await stage.source.events({ from, to: Math.max(stage.look.span.to, from + 1) }, stage.filter, REQUESTS, own.signal).catch((): Events | null => null);
    if (events === null || own.signal.aborted) return;
    next = events.next;
    more.disabled = next === null;
    const hadFocus = body.contains(document.activeElement);
    body.replaceChildren(...events.lines.map((line) => row(stage, line)));
    select();
    if (hadFocus) body.querySelector<HTMLElement>('[tabindex="0"]')?.focus();
  };
  const select = (): void => {
    const picked = String(stage.picked?.row ?? '');
    for (const line of body.rows) line.setAttribute('aria-selected', String(line.dataset['row'] === picked));
    const current = [...body.rows].find((line) => line.dataset['row'] === picked) ?? body.rows[0];
    for (const line of body.rows) line.tabIndex = line === current ? 0 : -1;
  };
  let timer = 0;
  stage.on('view', () => {
    clearTimeout(timer);
    timer = setTimeout(() => void fill(stage.look.span.from), SETTLE_MS);
  });
  stage.on('picked', select);
  body.addEventListener('keydown', (event) => walk(event, body));
  const head = ['device', 'time', 'pid', 'event', 'kind', 'sector + length', 'process'].map((text) => h('th', { scope: 'col' }, text));
  return h('section', { class: 'card', 'aria-label': 'Events of the window', 'data-panel': 'events' }, h('h2', {}, 'Events'),
    h('div', { class: 'scroll' }, h('table', { role: 'grid' }, h('thead', {}, h('tr', {}, ...head)), body)), h('p', {}, more, ' ', back));
}

function row(stage: Stage, line: EventLine): HTMLTableRowElement {
  const place = line.sectors === 0 && line.sector === 0 ? '' : `${line.sector} + ${line.sectors}`;
  const pick = (): void => void stage.pick(line.row);
  return h('tr', { 'data-row': line.row, tabindex: -1, onclick: pick, onkeydown: (event: KeyboardEvent) => { if (event.key === 'Enter' || event.key === ' ') pick(); } },
    h('td', {}, line.device), h('td', { class: 'number' }, blktraceTime(line.time)), h('td', { class: 'number' }, String(line.pid)), h('td', {}, line.action), h('td', {}, line.letters),
    h('td', {}, line.error === 0 ? place : `${place} [${line.error}]`), h('td', {}, line.process));
}

/** Up and down through the lines; one of them is where Tab comes in. */
function walk(event: KeyboardEvent, body: HTMLTableSectionElement): void {
  const lines = [...body.rows];
  const at = lines.indexOf(document.activeElement as HTMLTableRowElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: lines.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  const line = lines[Math.min(lines.length - 1, Math.max(0, to))]!;
  for (const other of lines) other.tabIndex = other === line ? 0 : -1;
  line.focus();
}
