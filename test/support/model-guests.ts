/**
 * Guests that share a disk and are sure of it: each has stripes of its own, which meet in the middle of sectors, granules
 * and clusters, so it knows what every byte that it reads must be. One more writes all over the end of the disk, several
 * requests at once that overlap: there nobody knows what is right, only that all copies must agree.
 */
import { makeRequest, RequestFlag, type BlockBackend, type Random } from '../../src/index.js';
import { turn } from './job-lab.js';

const STRIPE = 96 * 1024 + 512;

export class ModelGuests {
  readonly door: BlockBackend;
  /** What the disk must show; nobody knows of what lies behind `known`. */
  readonly disk: Buffer;
  readonly known: number;
  operations = 0;
  /** Requests that failed, as they may where a disk fails. */
  errors = 0;
  /** Turns of the event loop between two requests of one guest, at most. */
  idleTurns = 2;
  /** They start no requests meanwhile. */
  held = false;
  readonly #running: Promise<void>[] = [];
  #stopped = false;
  #busy = 0;

  constructor(door: BlockBackend, disk: Buffer, random: Random, { guests = 3, wild = 2 } = {}) {
    this.door = door;
    this.disk = disk;
    this.known = wild === 0 ? disk.byteLength : Math.ceil(disk.byteLength * 3 / 4);
    const seeds = (): Random => new (random.constructor as typeof Random)(random.next32());
    for (let index = 0; index < guests; index++) this.#running.push(this.#run(seeds(), (own) => this.#sure(own, index, guests)));
    for (let index = 0; index < wild; index++) this.#running.push(this.#run(seeds(), (own) => this.#wild(own)));
    for (const running of this.#running) running.catch(() => undefined); // told by `stop`
  }

  /** Resolves when no request is under way and none begins, until `held` is set back. */
  async hold(): Promise<void> {
    this.held = true;
    while (this.#busy > 0) await turn();
  }

  /** Rejects where one read what it had not written. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.held = false;
    await Promise.all(this.#running);
  }

  async #run(random: Random, one: (random: Random) => Promise<void>): Promise<void> {
    while (!this.#stopped) {
      if (!this.held) {
        this.#busy++;
        try {
          await one(random);
        } finally {
          this.#busy--;
        }
        this.operations++;
      }
      for (let left = random.below(this.idleTurns + 1); left >= 0 && !this.#stopped; left--) await turn();
    }
  }

  async #sure(random: Random, index: number, guests: number): Promise<void> {
    const count = Math.floor((this.known - 1 - index * STRIPE) / (guests * STRIPE)) + 1;
    if (count <= 0) return;
    const start = (random.below(count) * guests + index) * STRIPE;
    const end = Math.min(start + STRIPE, this.known);
    const unit = random.chance(0.5) ? 1 : 512;
    const offset = start + Math.floor(random.below(end - start) / unit) * unit;
    const bytes = 1 + random.below(random.chance(0.5) ? Math.min(end - offset, 5000) : end - offset);
    const mine = this.disk.subarray(offset, offset + bytes);
    const kind = random.below(20);
    if (kind < 7) return this.#write(offset, mine, Buffer.alloc(bytes, 1 + random.below(255)), random.chance(0.1));
    if (kind < 10) return this.#zero(offset, mine, random.chance(0.5));
    if (kind < 12) return this.#discard(offset, mine);
    if (kind === 12) return void await this.#try(() => this.door.submit(makeRequest('flush', 0, 0, null)));
    const read = await this.#read(offset, bytes);
    if (read !== null) compare(read, mine, offset);
  }

  async #write(offset: number, mine: Buffer, data: Buffer, fua: boolean): Promise<void> {
    const sent = Buffer.from(data);
    const failed = await this.#try(() => this.door.submit(makeRequest('write', offset, sent.byteLength, sent, fua ? RequestFlag.FUA : 0)));
    sent.fill(0xee); // it is the guest's again
    if (failed) await this.#settle(offset, mine, data);
    else data.copy(mine);
  }

  async #zero(offset: number, mine: Buffer, unmap: boolean): Promise<void> {
    const failed = await this.#try(() => this.door.submit(makeRequest('write-zeroes', offset, mine.byteLength, null, unmap ? RequestFlag.MAY_UNMAP : 0)));
    if (failed) await this.#settle(offset, mine, Buffer.alloc(mine.byteLength));
    else mine.fill(0);
  }

  /** Of it may be gone what the image likes to let go of. */
  async #discard(offset: number, mine: Buffer): Promise<void> {
    await this.#try(() => this.door.submit(makeRequest('discard', offset, mine.byteLength, null)));
    await this.#settle(offset, mine, Buffer.alloc(mine.byteLength));
  }

  /** After what was done in part, perhaps: each byte is the old or the new one, and stays so. */
  async #settle(offset: number, mine: Buffer, data: Buffer): Promise<void> {
    let read = await this.#read(offset, mine.byteLength);
    while (read === null) {
      for (let left = 20; left > 0; left--) await turn();
      read = await this.#read(offset, mine.byteLength);
    }
    const wrong = read.findIndex((byte, at) => byte !== mine[at] && byte !== data[at]);
    if (wrong >= 0) throw new Error(`byte ${offset + wrong} is ${read[wrong]}, neither ${mine[wrong]} nor ${data[wrong]}`);
    read.copy(mine);
  }

  async #wild(random: Random): Promise<void> {
    const bytes = Math.min(this.disk.byteLength - this.known, 1 + random.below(random.chance(0.5) ? 70_000 : 3000));
    const offset = this.known + random.below(this.disk.byteLength - this.known - bytes + 1);
    const kind = random.below(8);
    if (kind < 5) await this.#try(() => this.door.submit(makeRequest('write', offset, bytes, Buffer.alloc(bytes, 1 + random.below(255)))));
    else if (kind === 5) await this.#try(() => this.door.submit(makeRequest('write-zeroes', offset, bytes, null, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0)));
    else if (kind === 6) await this.#try(() => this.door.submit(makeRequest('discard', offset, bytes, null)));
    else await this.#read(offset, bytes);
  }

  async #read(offset: number, bytes: number): Promise<Buffer | null> {
    const read = Buffer.alloc(bytes, 0xee);
    return await this.#try(() => this.door.submit(makeRequest('read', offset, bytes, read))) ? null : read;
  }

  /** Returns whether it failed. */
  async #try(request: () => Promise<void>): Promise<boolean> {
    try {
      await request();
      return false;
    } catch {
      this.errors++;
      return true;
    }
  }

  /** The whole disk, which must be right as far as it is known. */
  async check(): Promise<Buffer> {
    const read = Buffer.alloc(this.disk.byteLength);
    await this.door.submit(makeRequest('read', 0, read.byteLength, read));
    compare(read.subarray(0, this.known), this.disk.subarray(0, this.known), 0);
    return read;
  }
}

function compare(read: Buffer, wanted: Buffer, offset: number): void {
  if (read.equals(wanted)) return;
  const at = read.findIndex((byte, index) => byte !== wanted[index]);
  throw new Error(`byte ${offset + at} is ${read[at]}, not ${wanted[at]}`);
}
