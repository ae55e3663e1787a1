import type { RequestDetail, RequestFacts } from '../answers.js';
import { classColour, colour, h, svg } from './dom.js';
import { bytesText, spanText, timeText } from './numbers.js';
import type { Stage } from './stage.js';

type Member = RequestDetail['family'][number];

/** Stretches of a request's life, by the letters they begin with. */
const STRETCHES: Readonly<Record<string, { readonly text: string; readonly place: number }>> = {
  Q: { text: 'waits for a request', place: 7 }, G: { text: 'waits to be inserted', place: 3 }, I: { text: 'waits in the scheduler', place: 6 }, D: { text: 'in the device', place: 0 },
};

/** The request that was picked: what it was, its waterfall, its parents and children across the layers, and what was merged into it. */
export function detailPane(stage: Stage): HTMLElement {
  const body = h('div', { 'aria-live': 'polite' });
  const update = (): void => body.replaceChildren(...(stage.picked === null ? [hint()] : content(stage, stage.picked)));
  stage.on('picked', update);
  stage.on('view', () => { if (document.documentElement.dataset['theme'] !== body.dataset['theme']) update(); });
  update();
  return h('section', { class: 'card', 'aria-label': 'Request', 'data-panel': 'request' }, h('h2', {}, 'Request'), body);
}

const hint = (): HTMLElement => h('p', { class: 'faint' }, 'Click a request in the offset panel, or choose a line of the list, to see where its time went.');

function content(stage: Stage, { row, family, cut }: RequestDetail): HTMLElement[] {
  const own = family.find((member) => member.row === row);
  if (own === undefined) return [hint()];
  const all = family.flatMap(({ times }) => times.map(([, time]) => time));
  const [from, to] = [Math.min(...all), Math.max(...all)];
  return [
    facts(own), stretches(own),
    h('h2', {}, family.length === 1 ? 'Waterfall' : `Waterfall of ${family.length} requests that belong together`),
    h('div', { class: 'waterfall', role: 'list' }, ...family.map((member) => line(stage, member, member.row === row, from, to))),
    h('p', { class: 'faint' }, `${timeText(from, to - from)} to ${timeText(to, to - from)}: ${spanText(to - from)}${cut ? '; there are more than are shown' : ''}`),
  ];
}

function facts(member: RequestFacts): HTMLElement {
  const first = member.times[0]?.[1];
  return h('div', {},
    h('p', {}, h('strong', {}, `${kindText(member)} of ${bytesText(member.bytes)}`), ` at sector ${member.sector}`),
    h('p', { class: 'faint' }, `${member.device}, ${member.process || 'process'} (${member.pid})${first === undefined ? '' : `, queued at ${timeText(first, 1000)}`}`),
    member.cause === '' ? null : h('p', {}, `Made for: ${member.cause}`),
    member.error === 0 ? null : h('p', { class: 'problem' }, `Failed with errno ${member.error}`));
}

function kindText({ letters }: RequestFacts): string {
  const kind = letters.includes('D') ? 'Discard' : letters.includes('W') ? 'Write' : letters.includes('R') ? 'Read' : 'Flush';
  return `${kind} (${letters})`;
}

/** Not every trace has every step. */
function stretchText(from: string, to: string): string {
  if (to === 'C' && from !== 'D') return 'until it was complete';
  return to === 'D' && from !== 'I' ? 'waits to be issued' : STRETCHES[from]?.text ?? '';
}

function stretches({ times }: RequestFacts): HTMLElement {
  return h('table', {}, h('tbody', {}, ...times.slice(0, -1).map(([letter, time], place) => {
    const [next, until] = times[place + 1]!;
    return h('tr', {}, h('td', {}, `${letter} → ${next}`), h('td', {}, stretchText(letter, next)), h('td', { class: 'number' }, spanText(until - time)));
  })));
}

function line(stage: Stage, member: Member, own: boolean, from: number, to: number): HTMLElement {
  const name = `${'  '.repeat(member.level)}${member.device.replace(/^\d+,\d+ /, '')}`;
  const relation = { itself: '', parent: 'above', child: 'below', merged: 'merged into it' }[member.how];
  const title = `${member.device}: ${kindText(member)} ${bytesText(member.bytes)} at sector ${member.sector}${member.cause === '' ? '' : `, ${member.cause}`}${relation === '' ? '' : ` (${relation})`}`;
  const picture = svg('svg', { viewBox: '0 0 1000 18', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, ...bars(member, from, to));
  const button = h('button', { type: 'button', 'aria-pressed': String(own), title, 'aria-label': `${title}, ${durationText(member)}`, onclick: () => void stage.pick(member.row) },
    h('span', { class: 'name' }, member.how === 'merged' ? `${name} (merged)` : name), picture);
  return h('div', { role: 'listitem' }, button);
}

const durationText = ({ times }: RequestFacts): string => (times.length < 2 ? 'never completed' : spanText(times.at(-1)![1] - times[0]![1]));

function bars({ times }: RequestFacts, from: number, to: number): SVGElement[] {
  const x = (time: number): number => ((time - from) / Math.max(1, to - from)) * 1000;
  const found = times.slice(0, -1).map(([letter, time], place) => svg('rect', {
    x: x(time), width: Math.max(2, x(times[place + 1]![1]) - x(time)), y: letter === 'D' ? 2 : 5, height: letter === 'D' ? 14 : 8, fill: classColour(STRETCHES[letter]?.place ?? 7),
  }));
  // a request that never went on is a mark where it was seen
  return found.length > 0 ? found : times.slice(0, 1).map(([, time]) => svg('rect', { x: Math.min(996, x(time)), width: 4, y: 2, height: 14, fill: colour('faint') }));
}
