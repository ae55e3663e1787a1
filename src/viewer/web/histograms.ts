import type { View } from '../answers.js';
import { POWERS, SEEK_BUCKETS, SEEK_MIDDLE } from '../buckets.js';
import { OPS, READ, WRITE } from '../operations.js';
import { classColour, colour, h, surface } from './dom.js';
import { bytesText, countText } from './numbers.js';

const HEIGHT = 130;
const BOTTOM = 16;
const LEFT = 44;

interface Bar {
  readonly label: string;
  readonly values: readonly { readonly value: number; readonly colour: string }[];
}

interface Histogram {
  readonly element: HTMLElement;
  draw(bars: readonly Bar[], summary: string): void;
}

function histogram(title: string): Histogram {
  const canvas = h('canvas');
  const body = h('div', { role: 'img', 'aria-label': title }, canvas);
  return {
    element: h('section', { 'aria-label': title }, h('h2', {}, title), body),
    draw: (bars, summary) => {
      body.setAttribute('aria-label', `${title}. ${summary}`);
      const { context, width } = surface(canvas, Math.max(160, body.clientWidth), HEIGHT);
      const most = Math.max(1, ...bars.flatMap(({ values }) => values.map(({ value }) => value)));
      const wide = (width - LEFT) / Math.max(1, bars.length);
      context.font = '10px system-ui, sans-serif';
      context.fillStyle = colour('faint');
      context.textAlign = 'right';
      context.fillText(countText(most), LEFT - 4, 10);
      context.textAlign = 'center';
      bars.forEach(({ label, values }, place) => {
        const left = LEFT + place * wide;
        values.forEach(({ value, colour: fill }, part) => {
          const high = value === 0 ? 0 : Math.max(1.5, (value / most) * (HEIGHT - BOTTOM - 4));
          const slim = (wide * 0.86) / values.length;
          context.fillStyle = fill;
          context.fillRect(left + wide * 0.07 + part * slim, HEIGHT - BOTTOM - high, Math.max(1, slim - 1), high);
        });
        if (place % Math.ceil(52 / wide) !== 0) return;
        context.fillStyle = colour('faint');
        context.fillText(label, left + wide / 2, HEIGHT - 4);
      });
    },
  };
}

/** The part of a list that is not empty. */
function filled(from: number, to: number, has: (place: number) => boolean): number[] {
  const all = Array.from({ length: to - from }, (_, place) => from + place);
  const used = all.filter(has);
  return used.length === 0 ? [] : all.slice(used[0]! - from, used.at(-1)! - from + 1);
}

export interface Histograms {
  readonly element: HTMLElement;
  draw(view: View): void;
}

export function histograms(): Histograms {
  const [sizes, seeks, runs] = [histogram('Sizes'), histogram('Seek distance, per direction'), histogram('Sequential runs, requests in each')];
  const element = h('div', { class: 'hists card', 'data-panel': 'shapes' }, sizes.element, seeks.element, runs.element);
  const pair = (cells: Uint32Array, buckets: number, place: number): Bar['values'] => [
    { value: cells[place]!, colour: classColour(0) }, { value: cells[buckets + place]!, colour: classColour(1) },
  ];
  return {
    element,
    draw: ({ shapes }) => {
      const of = (op: number, power: number): number => shapes.sizes[op * POWERS + power]!;
      const ops = [0, 1, 3, 4].filter((op) => shapes.sizes.subarray(op * POWERS, (op + 1) * POWERS).some((count) => count > 0));
      sizes.draw(filled(0, POWERS, (power) => ops.some((op) => of(op, power) > 0)).map((power) => ({
        label: bytesText(2 ** power), values: ops.map((op) => ({ value: of(op, power), colour: classColour(op) })),
      })), ops.map((op) => `${OPS[op]!}: ${commonest(shapes.sizes.subarray(op * POWERS, (op + 1) * POWERS), (power) => bytesText(2 ** power))}`).join('; '));
      const distance = (place: number): string => (place === SEEK_MIDDLE ? '0' : `${place < SEEK_MIDDLE ? '−' : ''}${bytesText(512 * 2 ** (Math.abs(place - SEEK_MIDDLE) - 1))}`);
      seeks.draw(filled(0, SEEK_BUCKETS, (place) => shapes.seeks[place]! + shapes.seeks[SEEK_BUCKETS + place]! > 0)
        .map((place) => ({ label: distance(place), values: pair(shapes.seeks, SEEK_BUCKETS, place) })), sequentialText(shapes.seeks));
      runs.draw(filled(0, POWERS, (power) => shapes.runs[power]! + shapes.runs[POWERS + power]! > 0)
        .map((power) => ({ label: countText(2 ** power), values: pair(shapes.runs, POWERS, power) })), 'reads, then writes');
    },
  };
}

function commonest(counts: Uint32Array, text: (place: number) => string): string {
  return `most often ${text(counts.indexOf(Math.max(...counts)))}`;
}

function sequentialText(seeks: Uint32Array): string {
  return ([[READ, 'reads'], [WRITE, 'writes']] as const).map(([op, name]) => {
    const all = seeks.subarray(op * SEEK_BUCKETS, (op + 1) * SEEK_BUCKETS).reduce((sum, count) => sum + count, 0);
    return all === 0 ? `no ${name}` : `${Math.round((100 * seeks[op * SEEK_BUCKETS + SEEK_MIDDLE]!) / all)} % of ${name} are sequential`;
  }).join(', ');
}
