/**
 * What viewers ask of a trace: panels over a window of time, and requests. No function here takes longer than a few passes over the
 * requests of the window; what the passes read was laid out once, when the model was made.
 */
import { SECTOR_BYTES } from '../trace/record.js';
import type { IoTable } from '../trace/traced-io.js';
import { binDepth, type Depth } from './depth.js';
import { compileFilter, type Filter } from './filter.js';
import { indexTable, type IoIndex, type TracedDevice, type TracedProcess } from './io-index.js';
import { FLUSH } from './operations.js';
import { firstAtOrAfter } from './order.js';
import { Relations, type Family } from './relations.js';
import { binScatter, scatterPoints, type ScatterBins, type ScatterPoints, type ScatterQuery } from './scatter.js';
import { binShapes, type Shapes } from './shapes.js';
import { binTraffic, type Traffic, type TrafficQuery } from './traffic.js';
import type { BinQuery, TimeSpan } from './window.js';

/** A place in the offset-over-time panel, and how much a step to either side is worth: distances count in those. */
export interface Place {
  readonly time: number;
  readonly sector: number;
  readonly timeUnit: number;
  readonly sectorUnit: number;
  readonly filter: Filter;
}

/** Requests further away than this many units are not what was meant. */
const REACH = 12;
/** Requests looked at on either side of the place. */
const MAX_CANDIDATES = 200_000;

export class TraceModel {
  readonly index: IoIndex;
  readonly relations: Relations;
  #bottomDevices: readonly number[] | undefined;

  constructor(readonly table: IoTable) {
    this.index = indexTable(table);
    this.relations = new Relations(table);
  }

  get devices(): readonly TracedDevice[] {
    return this.index.devices;
  }

  get processes(): readonly TracedProcess[] {
    return this.index.processes;
  }

  /** All of the trace; never of no length. */
  get span(): TimeSpan {
    const from = this.table.count === 0 ? 0 : Math.min(0, this.index.at[0]!);
    return { from, to: Math.max(this.table.endNs + 1, from + 1) };
  }

  /**
   * The layers that throughput and depth mean something for when nobody has chosen any: sums over a layer and those below count the
   * same data again. Where requests have children, those that have none themselves; else all.
   */
  get bottomDevices(): readonly number[] {
    return this.#bottomDevices ??= this.#findBottomDevices();
  }

  #findBottomDevices(): number[] {
    const { parent, count } = this.table;
    const above = new Uint8Array(this.devices.length);
    for (let row = 0; row < count; row++) if (parent[row]! >= 0) above[this.index.device[parent[row]!]!] = 1;
    const below = this.devices.filter((_, place) => above[place] === 0).map(({ device }) => device);
    return below.length === 0 ? this.devices.map(({ device }) => device) : below;
  }

  /** The sectors that requests on these devices touched; never of no length. */
  sectorRange(devices: readonly number[] | undefined): { sectorFrom: number; sectorTo: number } {
    const shown = this.devices.filter(({ device, sectorTo }) => sectorTo > 0 && (devices === undefined || devices.includes(device)));
    const sectorFrom = shown.reduce((least, device) => Math.min(least, device.sectorFrom), Infinity);
    const sectorTo = shown.reduce((most, device) => Math.max(most, device.sectorTo), 0);
    return sectorTo > sectorFrom ? { sectorFrom, sectorTo } : { sectorFrom: 0, sectorTo: 1 };
  }

  scatter(query: ScatterQuery): ScatterBins {
    return binScatter(this.index, query);
  }

  /** The requests themselves, null where they are more than `limit`. */
  points(query: ScatterQuery, limit: number): ScatterPoints | null {
    return scatterPoints(this.index, query, limit);
  }

  traffic(query: TrafficQuery): Traffic {
    return binTraffic(this.index, query);
  }

  depth(query: BinQuery): Depth {
    return binDepth(this.index, query);
  }

  shapes(query: BinQuery): Shapes {
    return binShapes(this.index, query);
  }

  /** Requests queued in the window, from the first at or after `from`; `limit` at most. */
  rows({ from, to }: TimeSpan, filter: Filter, limit: number): number[] {
    const { at } = this.index;
    const pass = compileFilter(this.index, filter);
    const found: number[] = [];
    for (let row = firstAtOrAfter(at, this.table.count, from); row < this.table.count && at[row]! < to && found.length < limit; row++) {
      if (pass[this.index.group[row]!] === 1) found.push(row);
    }
    return found;
  }

  /** The request nearest to a place, -1 for none within reach. A flush is as near as its time. */
  nearest(place: Place): number {
    const { at } = this.index;
    const pass = compileFilter(this.index, place.filter);
    const first = firstAtOrAfter(at, this.table.count, place.time);
    let best = -1;
    let bestDistance = REACH;
    const consider = (row: number): boolean => {
      // rows are in order of time: further on all are further away
      if (Math.abs(at[row]! - place.time) / place.timeUnit > REACH && at[row]! > place.time) return false;
      if (pass[this.index.group[row]!] === 0) return true;
      const distance = this.#distance(row, place);
      if (distance < bestDistance) [best, bestDistance] = [row, distance];
      return true;
    };
    const last = Math.min(this.table.count, first + MAX_CANDIDATES);
    for (let row = first; row < last && consider(row);) row++;
    // earlier ones may have taken until now
    for (let row = first - 1; row >= Math.max(0, first - MAX_CANDIDATES) && consider(row);) row--;
    return best;
  }

  /** Of the request's rectangle, from being queued to being completed, from its first to its last sector. */
  #distance(row: number, place: Place): number {
    const { sector, bytes, completed } = this.table;
    const begin = this.index.at[row]!;
    const end = completed[row]! >= begin ? completed[row]! : begin;
    const apart = (from: number, to: number, at: number): number => (at < from ? from - at : Math.max(0, at - to));
    const inTime = apart(begin, end, place.time) / place.timeUnit;
    if (this.index.op[row] === FLUSH) return inTime + 1;
    const first = sector[row]!;
    const inSpace = apart(first, first + bytes[row]! / SECTOR_BYTES, place.sector) / place.sectorUnit;
    return Math.hypot(inTime, inSpace);
  }

  /** The request, its parents up to the guest's, and what was made for it; `limit` of them at most. */
  family(row: number, limit = 200): Family {
    return this.relations.family(row, limit);
  }
}
