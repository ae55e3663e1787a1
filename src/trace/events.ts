/**
 * Points of the engine that QEMU has trace events for, under QEMU's names and with its fields, one line each in a log. While nobody listens
 * a point costs one look at `events.log`. Where QEMU prints the address of a coroutine (`co`) stands the number of the request, and of a
 * node, an image or a job (`bs`, `s`, `job`) a number of its own.
 */
import type { EventName } from './event-names.js';
import { EVENT_FIELDS } from './event-names.js';
import { systemClock } from '../base/clock.js';

type Value = number | boolean | string | object | null | undefined;

/** Where the log is; null where it is off. */
export const events: { log: EventLog | null } = { log: null };

export class EventLog {
  readonly #enabled: ReadonlySet<string>;
  readonly #print: (line: string, stamp: string) => void;
  readonly #numbers = new WeakMap<object, number>();
  #numbered = 0;

  /**
   * `patterns`: names with `*` for any part. Throws the first that matches nothing, as `unknown`. `print` gets each line, and the process and
   * moment that may stand before it: QEMU tells them only where it is asked to.
   */
  constructor(patterns: readonly string[], print: (line: string, stamp: string) => void, unknown: (pattern: string) => Error) {
    const enabled = new Set<string>();
    for (const pattern of patterns) {
      const found = matchingEvents(pattern);
      if (found.length === 0) throw unknown(pattern);
      for (const name of found) enabled.add(name);
    }
    this.#enabled = enabled;
    this.#print = print;
  }

  /** Values in the order of the event's fields. */
  emit(name: EventName, ...values: readonly Value[]): void {
    if (!this.#enabled.has(name)) return;
    const wallMs = systemClock.wallMs();
    let next = 0;
    const fields = EVENT_FIELDS[name].replaceAll(/%[pxdsb]/g, (form) => this.#text(form, values[next++]));
    this.#print(`${name} ${fields}`, `${process.pid}@${(wallMs / 1000).toFixed(6)}:`);
  }

  #text(form: string, value: Value): string {
    if (form === '%p') return typeof value === 'object' && value !== null ? `0x${this.#numberOf(value).toString(16)}` : `0x${Number(value ?? 0).toString(16)}`;
    if (form === '%x') return `0x${Number(value).toString(16)}`;
    if (form === '%b') return value === true ? '1' : '0';
    return typeof value === 'object' ? '' : String(value);
  }

  #numberOf(thing: object): number {
    let number = this.#numbers.get(thing);
    if (number === undefined) this.#numbers.set(thing, number = ++this.#numbered);
    return number;
  }
}

/** All names, or those that fit a pattern. */
export function matchingEvents(pattern = '*'): readonly EventName[] {
  const expression = new RegExp(`^${pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`)).join('.*')}$`);
  return (Object.keys(EVENT_FIELDS) as EventName[]).filter((name) => expression.test(name));
}
