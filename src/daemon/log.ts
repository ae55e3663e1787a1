/** What a daemon tells of its life. It prints nothing itself: whoever runs it gives it a log. */
import type { Clock } from '../base/clock.js';
import { BlockError, errnoOf, messageOf } from '../base/errors.js';
import type { FailedRequest } from '../nbd/export.js';
import type { JsonDict } from '../qobject/value.js';

type Facts = Readonly<Record<string, unknown>>;
type LogLine = (facts: Facts, what: string) => void;

export interface DaemonLog {
  readonly debug: LogLine;
  readonly info: LogLine;
  readonly warn: LogLine;
  readonly error: LogLine;
}

const nothing: LogLine = () => undefined;
export const SILENT: DaemonLog = { debug: nothing, info: nothing, warn: nothing, error: nothing };

const FAILURES_EVERY_MS = 1000;

/** Errors of a disk: one line in a second, with the number of those that had none. */
export class FailureLog {
  readonly #log: DaemonLog;
  readonly #clock: Clock;
  readonly #where: Facts;
  #quietUntil = -Infinity;
  #unsaid = 0;

  constructor(log: DaemonLog, clock: Clock, where: Facts) {
    this.#log = log;
    this.#clock = clock;
    this.#where = where;
  }

  add({ what, offset, bytes, error }: FailedRequest): void {
    // what a node lacks is its client's to know, and no failure
    if (error instanceof BlockError && error.code === 'NOT_SUPPORTED') return;
    const now = this.#clock.monotonicMs();
    if (now < this.#quietUntil) {
      this.#unsaid++;
      return;
    }
    const errno = errnoOf(error);
    this.#log.error({
      ...this.#where, offset, bytes, error: messageOf(error), ...errno === undefined ? {} : { errno }, ...this.#unsaid === 0 ? {} : { unsaid: this.#unsaid },
    }, what);
    this.#quietUntil = now + FAILURES_EVERY_MS;
    this.#unsaid = 0;
  }
}

/** Commands that change nothing. */
const LOOKS = /^(?:query-|qom-(?:list|get)|ringbuf-read|x-debug-|device-list|chardev-send-break)/;
/** What may be told of arguments that hold secrets, or much. */
const TELLABLE: Readonly<Record<string, readonly string[]>> = { 'object-add': ['qom-type', 'id'], 'qom-set': ['path', 'property'], 'ringbuf-write': ['device'] };

export function isWorthTelling(command: string): boolean {
  return !LOOKS.test(command);
}

export function tellable(command: string, args: JsonDict): Facts {
  const names = TELLABLE[command];
  return names === undefined ? args : Object.fromEntries(names.map((name) => [name, args[name]]));
}
