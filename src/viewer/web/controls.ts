import { OPS, type Op } from '../operations.js';
import { h } from './dom.js';
import { timeText, whole } from './numbers.js';
import type { Look, Stage } from './stage.js';

/** Which requests are shown, and how: buttons that are pressed or not, two lists, and the way around in time. */
export function controls(stage: Stage): HTMLElement {
  const { devices, processes } = stage.overview;
  return h('section', { class: 'controls card', 'aria-label': 'What is shown' },
    navigation(stage),
    toggles(stage, 'Layers', devices.map(({ device, name, requests }) => ({ value: device, text: name, title: `${whole(requests)} requests` })), ({ devices: on }) => on, (on) => ({ devices: on, sectors: null })),
    toggles<Op>(stage, 'Show', OPS.slice(0, 4).map((op) => ({ value: op, text: op, title: `${op} requests` })), ({ ops }) => ops, (ops) => ({ ops })),
    choice(stage, 'Colour', 'colour', [['op', 'by kind'], ['process', 'by process'], ['layer', 'by layer']], ({ colour }) => colour),
    choice(stage, 'Latency', 'latency', [['q2c', 'queued to completed'], ['d2c', 'in the device']], ({ latency }) => latency),
    processList(stage, processes.map(({ pid, name, requests }) => [String(pid), `${name || '?'} (${pid}): ${whole(requests)}`] as const)));
}

function navigation(stage: Stage): HTMLElement {
  const shown = h('output', { class: 'mono', 'aria-label': 'Window shown' });
  const update = (): void => {
    const { from, to } = stage.look.span;
    shown.textContent = `${timeText(from, to - from)} – ${timeText(to, to - from)}`;
  };
  stage.on('look', update);
  update();
  const button = (label: string, text: string, does: () => void): HTMLElement => h('button', { type: 'button', 'aria-label': label, title: label, onclick: does }, text);
  return h('fieldset', {}, h('legend', {}, 'Time'), button('back', '◀', () => stage.pan(-0.25)), button('zoom out', '−', () => stage.scale(2)),
    button('zoom in', '+', () => stage.scale(0.5)), button('on', '▶', () => stage.pan(0.25)), button('all of the trace', 'all', () => stage.zoom(stage.overview.span)), shown);
}

interface Toggle<T> {
  readonly value: T;
  readonly text: string;
  readonly title: string;
}

function toggles<T>(stage: Stage, name: string, all: readonly Toggle<T>[], on: (look: Look) => readonly T[], changes: (on: readonly T[]) => Partial<Look>): HTMLElement {
  const buttons = all.map(({ value, text, title }) => h('button', {
    type: 'button', title, onclick: () => {
      const before = on(stage.look);
      stage.change(changes(before.includes(value) ? before.filter((other) => other !== value) : [...before, value]));
    },
  }, text));
  const update = (): void => buttons.forEach((button, place) => button.setAttribute('aria-pressed', String(on(stage.look).includes(all[place]!.value))));
  stage.on('look', update);
  update();
  return h('fieldset', {}, h('legend', {}, name), ...buttons);
}

function choice<Name extends 'colour' | 'latency'>(stage: Stage, title: string, name: Name, options: readonly (readonly [Look[Name], string])[], of: (look: Look) => Look[Name]): HTMLElement {
  const select = h('select', { id: `choose-${name}`, onchange: () => stage.change({ [name]: select.value }) },
    ...options.map(([value, text]) => h('option', { value }, text)));
  const update = (): void => { select.value = of(stage.look); };
  stage.on('look', update);
  update();
  return h('fieldset', {}, h('label', { for: `choose-${name}`, class: 'faint' }, `${title} `), select);
}

function processList(stage: Stage, processes: readonly (readonly [string, string])[]): HTMLElement {
  const select = h('select', { id: 'choose-process', onchange: () => stage.change({ pid: select.value === '' ? null : Number(select.value) }) },
    h('option', { value: '' }, 'all'), ...processes.map(([value, text]) => h('option', { value }, text)));
  stage.on('look', () => { select.value = stage.look.pid === null ? '' : String(stage.look.pid); });
  return h('fieldset', {}, h('label', { for: 'choose-process', class: 'faint' }, 'Process '), select);
}

/** Light, dark, or what the system says. */
export function themeSwitch(onChange: () => void): HTMLElement {
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  let chosen: 'dark' | 'light' | null = null;
  const button = h('button', {
    type: 'button', 'aria-label': 'switch between dark and light', onclick: () => {
      chosen = document.documentElement.dataset['theme'] === 'dark' ? 'light' : 'dark';
      apply();
    },
  });
  const apply = (): void => {
    const theme = chosen ?? (system.matches ? 'dark' : 'light');
    document.documentElement.dataset['theme'] = theme;
    button.textContent = theme === 'dark' ? '☀ light' : '☾ dark';
    onChange();
  };
  system.addEventListener('change', apply);
  apply();
  return button;
}
