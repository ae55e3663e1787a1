import type { VmStateArea, VmStateSource } from '../../src/block/driver.js';

export interface Save {
  readonly position: number;
  readonly bytes: number;
}

/** A VM-state area in memory, whose writes take a settable time and fail on demand. */
export class FakeArea implements VmStateArea {
  readonly clusterSize: number;
  readonly saves: Save[] = [];
  memory = new Uint8Array(0);
  inFlight = 0;
  maxInFlight = 0;
  discards = 0;
  /** Called when a write reaches the "disk"; what it returns is awaited before the data is stored. */
  onSave: (save: Save, index: number) => Promise<void> | void = () => undefined;

  constructor(clusterSize = 65536) {
    this.clusterSize = clusterSize;
  }

  async save(position: number, data: Uint8Array): Promise<void> {
    const save = { position, bytes: data.byteLength };
    const index = this.saves.push(save) - 1;
    this.inFlight++;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    try {
      await this.onSave(save, index);
      this.#store(position, data);
    } finally {
      this.inFlight--;
    }
  }

  load(position: number, into: Uint8Array): Promise<number> {
    const part = this.memory.subarray(position, position + into.byteLength);
    into.set(part);
    return Promise.resolve(part.byteLength);
  }

  discard(): Promise<void> {
    this.discards++;
    this.memory = new Uint8Array(0);
    return Promise.resolve();
  }

  #store(position: number, data: Uint8Array): void {
    const end = position + data.byteLength;
    if (end > this.memory.byteLength) {
      const grown = new Uint8Array(end);
      grown.set(this.memory);
      this.memory = grown;
    }
    this.memory.set(data, position);
  }
}

/** A recorded VM state in memory; `stored` may differ from the recorded size. */
export class FakeSource implements VmStateSource {
  readonly size: number;
  readonly stored: Uint8Array;
  readonly loads: Save[] = [];
  inFlight = 0;
  maxInFlight = 0;
  onLoad: (load: Save, index: number) => Promise<void> | void = () => undefined;

  constructor(stored: Uint8Array, size = stored.byteLength) {
    this.stored = stored;
    this.size = size;
  }

  async load(position: number, into: Uint8Array): Promise<number> {
    const load = { position, bytes: into.byteLength };
    const index = this.loads.push(load) - 1;
    this.inFlight++;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    try {
      await this.onLoad(load, index);
      const part = this.stored.subarray(position, position + into.byteLength);
      into.set(part);
      return part.byteLength;
    } finally {
      this.inFlight--;
    }
  }
}

/** A promise that the test settles. */
export class Gate {
  readonly opened: Promise<void>;
  open!: () => void;

  constructor() {
    this.opened = new Promise((resolve) => { this.open = resolve; });
  }
}

/** Lets everything run that can run without the outside world. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
