import { Category } from '../../record.js';
import type { EvidenceRow, Finding, FindingRegion } from '../../finding.js';
import type { Annotations } from '../annotations.js';
import { Keyed, MAX_DEVICES, OTHERS } from '../keyed.js';
import type { OpenIos } from '../open-ios.js';
import type { PairingListener } from '../pairing-listener.js';

/** Hears of the requests of a trace, in bounded memory, and says at the end what is wrong with them. */
export interface Rule extends PairingListener {
  findings(): Finding[];
}

export interface RuleContext {
  readonly ios: OpenIos;
  readonly annotations: Annotations;
}

const MAX_EVIDENCE = 8;

/** Rows that show it, the first ones met, and the range of all. */
export class Evidence {
  readonly rows: EvidenceRow[] = [];
  private fromNs = Infinity;
  private toNs = -Infinity;
  private fromSector = Infinity;
  private toSector = 0;

  /** Whether there are as many rows as are shown; more need not be worded. */
  get full(): boolean { return this.rows.length >= MAX_EVIDENCE; }

  add(id: number, timeNs: number, what: string): void {
    if (!this.full) this.rows.push({ id, timeNs, what });
  }

  /** Times where they are known. */
  cover(fromNs: number, toNs: number, sector: number, sectors: number): void {
    if (fromNs < this.fromNs) this.fromNs = fromNs;
    if (toNs > this.toNs) this.toNs = toNs;
    if (sector < 0) return;
    if (sector < this.fromSector) this.fromSector = sector;
    if (sector + sectors > this.toSector) this.toSector = sector + sectors;
  }

  get region(): FindingRegion {
    return {
      fromNs: Number.isFinite(this.fromNs) ? this.fromNs : 0, toNs: Number.isFinite(this.toNs) ? this.toNs : 0,
      fromSector: Number.isFinite(this.fromSector) ? this.fromSector : 0, toSector: this.toSector,
    };
  }
}

/** A rule that looks at each device for itself. */
export abstract class DeviceRule<T> implements Rule {
  protected readonly ios: OpenIos;
  protected readonly annotations: Annotations;
  protected readonly devices: Keyed<T>;

  protected constructor({ ios, annotations }: RuleContext, make: (device: number) => T) {
    this.ios = ios;
    this.annotations = annotations;
    this.devices = new Keyed(MAX_DEVICES, make);
  }

  protected of(slot: number): T {
    return this.devices.get(this.ios.device[slot]!);
  }

  protected abstract judge(state: T, device: number): Finding | null;

  findings(): Finding[] {
    return [...this.devices.all].flatMap(([device, state]) => {
      // what a format does for itself comes when it must: what is wrong with it shows in the file below, or in `metadata`
      const judged = device !== OTHERS && this.annotations.layers.get(device) !== 'metadata';
      const finding = judged ? this.judge(state, device) : null;
      return finding === null ? [] : [finding];
    });
  }
}

/** Whether it reads or writes data: no flush, no discard, and somebody queued it. */
export function isData(ios: OpenIos, slot: number): boolean {
  return ios.bytes[slot]! > 0 && (ios.category[slot]! & Category.DISCARD) === 0 && !Number.isNaN(ios.queued[slot]!);
}

export function isWrite(ios: OpenIos, slot: number): boolean {
  return (ios.category[slot]! & Category.WRITE) !== 0;
}

/** `62 %`. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** `1.3 ms`, with three digits. */
export function duration(ns: number): string {
  const [unit, scale] = ns < 1e3 ? ['ns', 1] : ns < 1e6 ? ['us', 1e3] : ns < 1e9 ? ['ms', 1e6] : ['s', 1e9] as const;
  return `${Number((ns / scale).toPrecision(3))} ${unit}`;
}

/** `64 KiB`. */
export function size(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(3))} ${units[unit]}`;
}
