import type { View } from '../answers.js';
import { h } from './dom.js';

/** One of the panels that share the axis of time. */
export interface Panel {
  readonly element: HTMLElement;
  /** With plots of this width. */
  draw(view: View, width: number): void;
}

export interface LegendEntry {
  readonly text: string;
  readonly colour: string;
  readonly mark?: 'mark' | 'flush';
}

export interface PanelFrame {
  readonly element: HTMLElement;
  readonly body: HTMLElement;
  readonly setLegend: (entries: readonly LegendEntry[]) => void;
  /** What a reader that does not see the picture is told. */
  readonly setSummary: (text: string) => void;
}

export function panelFrame(title: string, kind: string): PanelFrame {
  const legend = h('div', { class: 'legend' });
  const summary = h('p', { class: 'hidden' });
  const body = h('div', { role: 'img', 'aria-label': title });
  const element = h('section', { class: 'panel', 'data-panel': kind, 'aria-label': title }, h('header', {}, h('h2', {}, title), legend), body, summary);
  return {
    element, body,
    setLegend: (entries) => legend.replaceChildren(...entries.map(({ text, colour, mark }) => {
      const sample = h('i', { class: mark });
      if (mark === undefined) sample.style.background = colour;
      return h('span', {}, sample, text);
    })),
    setSummary: (text) => {
      summary.textContent = text;
      body.setAttribute('aria-label', `${title}. ${text}`);
    },
  };
}
