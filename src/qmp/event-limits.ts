/** Events that a guest could cause in floods go out once a second; of those in between the last one follows. */
import type { Clock } from '../base/clock.js';
import { printJson } from '../qobject/print.js';
import type { JsonDict } from '../qobject/value.js';

/** The member of the data that tells one source of such events from another; null: one limit for all. */
const LIMITED: Readonly<Record<string, string | null>> = { QUORUM_REPORT_BAD: 'node-name', QUORUM_FAILURE: null, VSERPORT_CHANGE: 'id' };
const INTERVAL_MS = 1000;

export class EventLimits {
  readonly #clock: Clock;
  readonly #send: (event: JsonDict) => void;
  /** By source: the event that waits for the end of the interval. */
  readonly #waiting = new Map<string, JsonDict | null>();

  constructor(clock: Clock, send: (event: JsonDict) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  /** Sends the event now, or the last one of its kind when the interval is over. */
  emit(name: string, data: JsonDict, event: JsonDict): void {
    const member = LIMITED[name];
    if (member === undefined) return this.#send(event);
    const source = `${name} ${member === null ? '' : printJson(data[member] ?? null)}`;
    if (this.#waiting.has(source)) {
      this.#waiting.set(source, event);
      return;
    }
    this.#send(event);
    void this.#interval(source);
  }

  async #interval(source: string): Promise<void> {
    let event: JsonDict | null | undefined;
    do {
      this.#waiting.set(source, null);
      await this.#clock.sleep(INTERVAL_MS);
      event = this.#waiting.get(source);
      if (event !== null && event !== undefined) this.#send(event);
    } while (event !== null && event !== undefined);
    this.#waiting.delete(source);
  }
}
