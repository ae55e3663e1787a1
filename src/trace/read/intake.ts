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
  #reading: Promise<number> | null = null;

  constructor(source: ByteSource, decoder: RecordDecoder, clock: Clock = systemClock) {
    this.#source = source;
    this.decoder = decoder;
    this.clock = clock;
  }

  get live(): boolean { return this.#source.live; }

  /** As the decoder's; `hasty` takes a last record whose successor has not come. */
  decode(into: Columns, hasty = false): boolean {
    return this.decoder.decode(into, this.ended, hasty);
  }

  /** Reads once. False: the source is live and was silent; with `patient` it is waited for. */
  async fill(patient: boolean): Promise<boolean> {
    this.#reading ??= this.#source.read(this.decoder.space());
    const got = patient || !this.live ? await this.#reading : await this.#unlessSilent(this.#reading);
    if (got === null) return false;
    this.#reading = null;
    this.ended = got === 0;
    this.decoder.filled(got);
    this.bytesRead += got;
    return true;
  }

  async #unlessSilent(reading: Promise<number>): Promise<number | null> {
    const wake = new AbortController();
    try {
      return await Promise.race([reading, this.clock.sleep(LIVE_DELAY_MS, wake.signal).then(() => null)]);
    } finally {
      wake.abort();
    }
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}
