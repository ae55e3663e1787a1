import type { IoTable } from '../traced-io.js';
import { NONE, type OpenIos } from './open-ios.js';
import type { Pairing } from './pairing.js';
import type { PairingCounts, PairingListener } from './pairing-listener.js';

export interface BuiltIoTable extends IoTable {
  /** What did not pair. */
  readonly counts: PairingCounts;
}

/** Takes each request to the row of its id when it is closed. */
export class IoTableBuilder implements PairingListener {
  private device = new Uint32Array(1024);
  private sector = new Float64Array(1024);
  private bytes = new Uint32Array(1024);
  private category = new Uint32Array(1024);
  private pid = new Uint32Array(1024);
  private queued = new Float64Array(1024);
  private gotRequest = new Float64Array(1024);
  private inserted = new Float64Array(1024);
  private issued = new Float64Array(1024);
  private completed = new Float64Array(1024);
  private error = new Uint16Array(1024);
  private parent = new Int32Array(1024);
  private mergedInto = new Int32Array(1024);
  private cause = new Uint16Array(1024);

  constructor(private readonly ios: OpenIos) {}

  requestClosed(slot: number): void {
    const { ios } = this;
    const row = ios.id[slot]!;
    if (row >= this.device.length) this.grow(row);
    this.device[row] = ios.device[slot]!;
    this.sector[row] = Math.max(0, ios.sector[slot]!);
    this.bytes[row] = ios.bytes[slot]!;
    this.category[row] = ios.category[slot]!;
    this.pid[row] = ios.pid[slot]!;
    this.queued[row] = ios.queued[slot]!;
    this.gotRequest[row] = ios.gotRequest[slot]!;
    this.inserted[row] = ios.inserted[slot]!;
    this.issued[row] = ios.issued[slot]!;
    this.completed[row] = ios.completed[slot]!;
    this.error[row] = ios.error[slot]!;
    this.parent[row] = ios.parent[slot]!;
    this.mergedInto[row] = ios.mergedInto[slot]!;
    this.cause[row] = ios.cause[slot]!;
  }

  /** After the pairing's `finish`: the columns are as long as there are rows. */
  finish({ counts, endNs, annotations }: Pairing, processes: ReadonlyMap<number, string>): BuiltIoTable {
    const count = this.ios.opens;
    const table: BuiltIoTable = {
      count, counts, endNs, processes: new Map([...processes, ...annotations.processes]), causes: annotations.causes, deviceNames: annotations.deviceNames,
      device: this.device.subarray(0, count), sector: this.sector.subarray(0, count), bytes: this.bytes.subarray(0, count),
      category: this.category.subarray(0, count), pid: this.pid.subarray(0, count), queued: this.queued.subarray(0, count),
      gotRequest: this.gotRequest.subarray(0, count), inserted: this.inserted.subarray(0, count), issued: this.issued.subarray(0, count),
      completed: this.completed.subarray(0, count), error: this.error.subarray(0, count), parent: this.parent.subarray(0, count),
      mergedInto: this.mergedInto.subarray(0, count), cause: this.cause.subarray(0, count),
    };
    return table;
  }

  private grow(row: number): void {
    const length = Math.max(row + 1, Math.floor(this.device.length * 1.5));
    for (const name of FLOATS) this[name] = longer(this[name], new Float64Array(length));
    for (const name of WORDS) this[name] = longer(this[name], new Uint32Array(length));
    this.error = longer(this.error, new Uint16Array(length));
    this.cause = longer(this.cause, new Uint16Array(length));
    this.parent = longer(this.parent, new Int32Array(length).fill(NONE));
    this.mergedInto = longer(this.mergedInto, new Int32Array(length).fill(NONE));
  }
}

const FLOATS = ['sector', 'queued', 'gotRequest', 'inserted', 'issued', 'completed'] as const;
const WORDS = ['device', 'bytes', 'category', 'pid'] as const;

function longer<T extends Uint16Array | Uint32Array | Int32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
