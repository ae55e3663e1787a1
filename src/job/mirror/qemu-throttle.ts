/**
 * Slows down those who write to a disk of QEMU's: by the limits of the device that has it, or of the throttle filter over it.
 * The user's own limits stay in force meanwhile and come back afterwards.
 */
import { QmpError, type QmpClient } from '../../qmp/client.js';
import { expectList, expectObject, isObject, type JsonObject } from '../../qmp/wire.js';

/** One limit for writes, or, where the user has one for all, that one. */
interface WriteLimit {
  set(bytesPerSecond: number | null): Promise<void>;
}

/** A device whose limits have a group of this name was left so by a run that was killed. */
const GROUP = 'quiesce-';
/** Smaller changes are not worth a command. */
const WORTH = 0.05;

export class QemuThrottle {
  readonly #limit: WriteLimit;
  #present: number | null = null;

  private constructor(limit: WriteLimit) {
    this.#limit = limit;
  }

  /** `device`: as `query-block` tells of it; `node`: as `query-named-block-nodes` does. Null where neither can be limited. */
  static async of(qmp: QmpClient, device: JsonObject | null, node: JsonObject): Promise<QemuThrottle | null> {
    if (device !== null) return new QemuThrottle(deviceLimit(qmp, device));
    const group = throttleGroupOf(node);
    return group === null ? null : new QemuThrottle(await groupLimit(qmp, group));
  }

  /** Bytes per second; null = no limit but the user's own. */
  async set(bytesPerSecond: number | null): Promise<void> {
    const rate = bytesPerSecond === null ? null : Math.max(1, Math.round(bytesPerSecond));
    if (rate === this.#present || (rate !== null && this.#present !== null && Math.abs(rate - this.#present) < WORTH * this.#present)) return;
    await this.#limit.set(rate);
    this.#present = rate;
  }
}

const RATES = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'] as const;

function deviceLimit(qmp: QmpClient, device: JsonObject): WriteLimit {
  const inserted = device['inserted'] as JsonObject;
  const path = textIn(device, 'qdev');
  const id = path === '' ? { device: device['device'] } : { id: path };
  const leftOver = textIn(inserted, 'group').startsWith(GROUP);
  const own = Object.fromEntries(Object.entries(inserted).filter(([name]) => /^(bps|iops)(_|$)/.test(name) || name === 'group'));
  const rates = leftOver ? {} : own;
  const base = { ...Object.fromEntries(RATES.map((name) => [name, 0])), ...rates };
  const total = Number(base['bps']);
  return {
    set: async (rate) => {
      const limited = rate === null ? {} : total > 0 ? { bps: Math.min(total, rate) } : { bps_wr: least(Number(base['bps_wr']), rate) };
      const group = rate === null ? {} : { group: `${GROUP}${process.pid}` };
      // a burst that the user allows is none that a slower rate allows
      const bursts = rate === null ? {} : { bps_max: undefined, bps_wr_max: undefined, bps_max_length: undefined, bps_wr_max_length: undefined };
      await qmp.execute('block_set_io_throttle', { ...id, ...withGroup(base), ...bursts, ...limited, ...group });
    },
  };
}

/** QEMU tells of a group only where there are limits. */
function withGroup(limits: Record<string, unknown>): JsonObject {
  return limits['group'] === '' ? { ...limits, group: undefined } : limits;
}

async function groupLimit(qmp: QmpClient, group: string): Promise<WriteLimit> {
  const path = `/objects/${group}`;
  const own = expectObject('qom-get', await qmp.execute('qom-get', { path, property: 'limits' }));
  const total = Number(own['bps-total'] ?? 0);
  return {
    set: async (rate) => {
      const limited = rate === null ? {} : total > 0
        ? { 'bps-total': Math.min(total, rate), 'bps-total-max': 0, 'bps-total-max-length': 1 }
        : { 'bps-write': least(Number(own['bps-write'] ?? 0), rate), 'bps-write-max': 0, 'bps-write-max-length': 1 };
      await qmp.execute('qom-set', { path, property: 'limits', value: { ...own, ...limited } });
    },
  };
}

/** 0 = no limit. */
function least(own: number, rate: number): number {
  return own === 0 ? rate : Math.min(own, rate);
}

/** A throttle filter names its group in what it is made of. */
function throttleGroupOf(node: JsonObject): string | null {
  if (node['drv'] !== 'throttle') return null;
  const file = String(node['file']);
  if (!file.startsWith('json:')) return null;
  const options: unknown = JSON.parse(file.slice('json:'.length));
  return isObject(options) && typeof options['throttle-group'] === 'string' ? options['throttle-group'] : null;
}

/** The device that has a node, as `query-block` tells of it, by the name of either; nobody but machines has devices. */
export async function findDevice(qmp: QmpClient, name: string): Promise<JsonObject | null> {
  const devices = await qmp.execute('query-block').then((reply) => expectList('query-block', reply), (error: unknown) => {
    if (error instanceof QmpError && error.errorClass === 'CommandNotFound') return [];
    throw error;
  });
  return devices.find((device) => isObject(device['inserted']) && (namesOf(device).includes(name) || device['inserted']['node-name'] === name)) ?? null;
}

/** Empty where there is none. */
export function textIn(object: JsonObject, field: string): string {
  const value = object[field];
  return typeof value === 'string' ? value : '';
}

/** `virtio0`, `/machine/peripheral/disk0/virtio-backend`, and the `disk0` in it. */
function namesOf(device: JsonObject): string[] {
  const path = textIn(device, 'qdev');
  const id = /^\/machine\/peripheral\/([^/]+)/.exec(path)?.[1];
  return [textIn(device, 'device'), path, ...id === undefined ? [] : [id]].filter((name) => name !== '');
}
