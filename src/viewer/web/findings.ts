import type { ShownFinding } from '../answers.js';
import { h } from './dom.js';
import { whole } from './numbers.js';
import type { Stage } from './stage.js';

export interface Findings {
  readonly element: HTMLElement;
  /** Shows the next one, or the one before. */
  step(by: 1 | -1): void;
}

const SIGNS = { critical: '▲ critical', warning: '◆ warning', note: '● note' } as const;

/** First of all: what is wrong, and how to mend it. Each leads to where it is to be seen. */
export function findingsList(stage: Stage, announce: (text: string) => void): Findings {
  const { findings } = stage.overview;
  let current = -1;
  const show = (place: number): void => {
    current = place;
    const finding = findings[place]!;
    buttons.forEach((button, other) => button.setAttribute('aria-pressed', String(other === place)));
    stage.showFinding(finding);
    if (finding.evidence.length > 0) void stage.pick(finding.evidence[0]!);
    announce(`${finding.title}: shown in the panels`);
  };
  const buttons = findings.map((finding, place) => button(finding, () => show(place)));
  const list = findings.length === 0
    ? h('p', { class: 'faint' }, 'Nothing that looks wrong was found.')
    : h('ol', {}, ...buttons.map((one) => h('li', {}, one)));
  return {
    element: h('section', { class: 'findings card', 'aria-label': 'Findings' }, h('h2', {}, `Findings (${findings.length})`), list),
    step: (by) => {
      if (findings.length > 0) show((current + by + findings.length + (current < 0 && by < 0 ? 1 : 0)) % findings.length);
    },
  };
}

function button({ severity, title, text, cure, evidence }: ShownFinding, show: () => void): HTMLButtonElement {
  return h('button', { type: 'button', 'aria-pressed': 'false', onclick: show },
    h('span', { class: `severity ${severity}` }, SIGNS[severity]),
    h('span', {}, h('strong', {}, title), text, cure === '' ? null : h('span', { class: 'faint' }, ` → ${cure}`),
      evidence.length === 0 ? null : h('span', { class: 'faint' }, ` (${whole(evidence.length)} requests as evidence)`)));
}
