/** Random guest activity: several requests in flight that never overlap, and between them the verbs of snapshots. */
import type { Random } from '../../src/base/clock.js';
import { SECTOR_BYTES } from '../support/sector-history.js';
import type { Guest } from './guest.js';
import type { Scenario } from './scenario.js';

const MAX_SNAPSHOTS = 4;

interface Range {
  readonly offset: number;
  readonly bytes: number;
}

export class Workload {
  readonly #guest: Guest;
  readonly #random: Random;
  readonly #scenario: Scenario;
  readonly #log: (line: string) => void;
  readonly #inFlight = new Set<Promise<void>>();
  readonly #busy = new Set<Range>();
  /** Requests that look at the disk afterwards, which a verb that drains would put off until it is over. */
  #looking = 0;
  #names = 0;
  #failure: { readonly error: unknown } | null = null;

  constructor(guest: Guest, scenario: Scenario, random: Random, log: (line: string) => void) {
    this.#guest = guest;
    this.#scenario = scenario;
    this.#random = random;
    this.#log = log;
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      await this.#step();
      while (this.#inFlight.size >= this.#scenario.depth) await Promise.race(this.#inFlight);
      this.#throwFailure();
    }
    await this.#settle();
  }

  async #settle(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.race(this.#inFlight);
    this.#throwFailure();
  }

  async #step(): Promise<void> {
    const random = this.#random;
    if (this.#scenario.bitmaps && random.chance(0.1)) return this.#bitmapVerb();
    const kind = random.below(100);
    if (kind < 72) return random.chance(0.1) ? this.#beside() : this.#request(kind);
    if (kind < 82) return this.#start('flush', null, () => this.#guest.flush());
    if (this.#looking > 0 || random.chance(0.5)) await this.#settle();
    if (kind < 84) return this.#stateWithoutSnapshot();
    if (kind < 91) return this.#create();
    if (kind < 92 && this.#guest.backingName !== null && random.chance(0.4)) return this.#renameBacking();
    if (kind < 93) return this.#resize();
    const names = [...this.#guest.snapshots.keys()];
    if (names.length === 0) return;
    const name = random.pick(names);
    this.#log(`${kind < 95 ? 'apply' : 'delete'} ${name}`);
    if (kind >= 95) await this.#guest.delete(name);
    else if (!await this.#guest.apply(name)) this.#log('refused');
  }

  #request(kind: number): void {
    const range = this.#freeRange();
    if (range === null) return;
    const { offset, bytes } = range;
    const guest = this.#guest;
    const random = this.#random;
    if (kind < 42) {
      const data = new Uint8Array(bytes);
      random.fill(data);
      this.#start('write', range, () => guest.write(offset, data));
    } else if (kind < 52) {
      const unmap = random.chance(0.5);
      this.#start(unmap ? 'unmap zeroes' : 'zeroes', range, () => guest.writeZeroes(offset, bytes, unmap));
    } else if (kind < 62) {
      this.#looking++;
      this.#start('discard', range, () => guest.discard(offset, bytes).finally(() => { this.#looking--; }));
    } else {
      this.#start('read', range, () => guest.read(offset, bytes));
    }
  }

  /** Requests that overlap: reads anywhere, and a write that races a discard. */
  #beside(): void {
    const guest = this.#guest;
    const random = this.#random;
    if (random.chance(0.5)) {
      const sector = random.below(guest.size / SECTOR_BYTES);
      const count = Math.min(1 + random.below(32), guest.size / SECTOR_BYTES - sector);
      this.#looking++; // a verb would put it off until the disk is another one
      this.#start(`peek at sectors ${sector} to ${sector + count - 1}`, null, () => guest.peek(sector, count).finally(() => { this.#looking--; }));
      return;
    }
    const range = this.#freeRange();
    if (range === null) return;
    const offset = range.offset - (range.offset % SECTOR_BYTES);
    const data = new Uint8Array(Math.min(sectorsEnd(range) * SECTOR_BYTES, guest.size) - offset);
    random.fill(data);
    this.#looking++;
    this.#start('race', { offset, bytes: data.byteLength }, () => guest.race(offset, data).finally(() => { this.#looking--; }));
  }

  async #stateWithoutSnapshot(): Promise<void> {
    if (this.#random.chance(0.3)) {
      this.#log('drop state');
      await this.#guest.driver.vmState!.discard();
    } else {
      await this.#saveState();
    }
  }

  async #saveState(): Promise<Uint8Array> {
    const state = new Uint8Array(1 + this.#random.below(this.#scenario.maxState));
    this.#random.fill(state);
    this.#log(`save state of ${state.byteLength}`);
    await this.#guest.saveState(state, this.#random);
    return state;
  }

  async #create(): Promise<void> {
    if (this.#guest.snapshots.size >= MAX_SNAPSHOTS) return;
    const state = this.#random.chance(0.5) ? await this.#saveState() : new Uint8Array(0);
    if (this.#looking > 0) await this.#settle();
    let name = `s${this.#names++}`;
    while (this.#guest.snapshots.has(name)) name = `s${this.#names++}`;
    this.#log(`create ${name} with ${state.byteLength} of state`);
    if (!await this.#guest.create(name, state)) this.#log('refused');
  }

  async #resize(): Promise<void> {
    const random = this.#random;
    const sectors = this.#guest.size / SECTOR_BYTES;
    const size = SECTOR_BYTES * (random.chance(0.5) ? sectors + 1 + random.below(100) : Math.max(1, random.below(sectors)));
    this.#log(`resize to ${size}`);
    await this.#guest.resize(size);
  }

  /** Of any length: the new name needs a place beside the old one. */
  async #renameBacking(): Promise<void> {
    const name = `${'./'.repeat(this.#random.below(this.#random.chance(0.2) ? 120 : 30))}backing.raw`;
    this.#log(`call the backing file by ${name.length} characters`);
    if (!await this.#guest.renameBacking(name)) this.#log('refused');
  }

  async addBitmap(): Promise<void> {
    const random = this.#random;
    this.#log('add bitmap');
    await this.#guest.bitmaps.add(this.#guest.node, random.pick([512, 1024, 4096, 65536]), random.chance(0.8), this.#guest.history.current);
  }

  async #bitmapVerb(): Promise<void> {
    await this.#settle(); // so that what the disk holds now is known
    const random = this.#random;
    const { bitmaps, node, history } = this.#guest;
    const { usable } = bitmaps;
    const verb = random.pick(['add', 'add', 'clear', 'toggle', 'merge', 'remove'] as const);
    const name = random.pick(verb === 'remove' && bitmaps.models.size > 0 ? [...bitmaps.models.keys()] : usable.length > 0 ? usable : ['']);
    if (verb === 'add' ? bitmaps.models.size >= 3 : name === '') return;
    if (verb === 'add') return this.addBitmap();
    this.#log(`${verb} bitmap ${name}`);
    switch (verb) {
      case 'clear': return bitmaps.clear(node, name, history.current);
      case 'toggle': return bitmaps.toggle(node, name);
      case 'merge': return bitmaps.merge(node, name, random.pick(usable));
      case 'remove': return bitmaps.remove(node, name);
    }
  }

  /** A range that shares no sector with a request in flight, or null. */
  #freeRange(): Range | null {
    const random = this.#random;
    const { size } = this.#guest;
    const clusterSize = this.#scenario.create.clusterSize!;
    let offset = random.below(size);
    const unit = random.pick([1, SECTOR_BYTES, SECTOR_BYTES, clusterSize, clusterSize]);
    offset -= offset % unit;
    const longest = random.chance(0.1) ? size : clusterSize * 6;
    let bytes = Math.ceil((1 + random.below(longest)) / unit) * unit;
    bytes = Math.min(bytes, size - offset);
    for (const range of this.#busy) {
      const apart = sectorsEnd(range) * SECTOR_BYTES <= offset - (offset % SECTOR_BYTES) ||
        Math.ceil((offset + bytes) / SECTOR_BYTES) <= Math.floor(range.offset / SECTOR_BYTES);
      if (!apart) return null;
    }
    return { offset, bytes };
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }

  #start(what: string, range: Range | null, work: () => Promise<void>): void {
    this.#log(range === null ? what : `${what} ${range.offset} ${range.bytes}`);
    const request = this.#guarded(range, work);
    this.#inFlight.add(request);
    void request.finally(() => this.#inFlight.delete(request));
  }

  /** Never rejects: the first failure waits for the next step. */
  async #guarded(range: Range | null, work: () => Promise<void>): Promise<void> {
    if (range !== null) this.#busy.add(range);
    try {
      await work();
    } catch (error) {
      this.#failure ??= { error };
    }
    if (range !== null) this.#busy.delete(range);
  }
}

function sectorsEnd({ offset, bytes }: Range): number {
  return Math.ceil((offset + bytes) / SECTOR_BYTES);
}
