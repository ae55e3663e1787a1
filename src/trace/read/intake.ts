/** A source and its decoder: bytes go in as they come, and one that is silent is not waited for. */
import { systemClock, type Clock } from '../../base/clock.js';
import type { ByteSource } from './byte-source.js';
import type { Columns } from './columns.js';
import type { RecordDecoder } from './decoder.js';

/** What a live source delivered is handed on after so long, whether more comes or not. */
export const LIVE_DELAY_MS = 250;

export class Intake {
  readonly decoder: RecordDecoder;
  readonly clock: Clock;
  bytesRead = 0;
  /** All bytes are in the decoder. */
  ended = false;
  readonly #source: ByteSource;
  readonly #signal: AbortSignal | undefined;
  #reading: Promise<number> | null = null;

  /** A signal ends the source: what was read counts. */
  constructor(source: ByteSource, decoder: RecordDecoder, { clock = systemClock, signal }: { readonly clock?: Clock | undefined; readonly signal?: AbortSignal | undefined }) {
    this.#source = source;
    this.decoder = decoder;
    this.clock = clock;
    this.#signal = signal;
  }

  get live(): boolean { return this.#source.live; }

  /** As the decoder's; `hasty` takes a last record whose successor has not come. */
  decode(into: Columns, hasty = false): boolean {
    return this.decoder.decode(into, this.ended, hasty);
  }

  /** Reads once. False: the source is live and was silent; with `patient` it is waited for. */
  async fill(patient: boolean): Promise<boolean> {
    if (this.#isStopped()) {
      this.ended = true;
      return true;
    }
    this.#reading ??= this.#source.read(this.decoder.space());
    const got = this.live ? await this.#unlessSilent(this.#reading, patient) : await this.#reading;
    if (got === null) return this.#isStopped() ? this.fill(patient) : false;
    this.#reading = null;
    this.ended = got === 0;
    this.decoder.filled(got);
    this.bytesRead += got;
    return true;
  }

  #isStopped(): boolean {
    return this.#signal?.aborted === true;
  }

  /** Null where nothing came: for a while, or (`patient`) until the signal. */
  async #unlessSilent(reading: Promise<number>, patient: boolean): Promise<number | null> {
    const wake = new AbortController();
    const stop = (): void => wake.abort();
    this.#signal?.addEventListener('abort', stop);
    const silence = patient ? aborted(wake.signal) : this.clock.sleep(LIVE_DELAY_MS, wake.signal);
    try {
      return await Promise.race([reading, silence.then(() => null)]);
    } finally {
      this.#signal?.removeEventListener('abort', stop);
      wake.abort();
    }
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
