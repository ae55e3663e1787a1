import { GiB } from '../base/bytes.js';
import { NullDriver } from '../protocol/null.js';
import type { DriverDefinition } from './drivers.js';
import { invalid } from './options.js';

export const NULL_DRIVERS: readonly DriverDefinition[] = (['null-co', 'null-aio'] as const).map((name) => ({
  name,
  protocol: true,
  reopen: () => ({}),
  open: async ({ options, common }) => {
    const size = options.size('size');
    const latencyNs = options.number('latency-ns') ?? 0;
    const readZeroes = options.bool('read-zeroes');
    options.string('filename');
    // a negative number of the monitor comes as a big one
    if (latencyNs < 0 || latencyNs >= 2 ** 63) throw invalid('latency-ns is invalid');
    return {
      driver: new NullDriver({ bytes: size ?? GiB, formatName: name, latencyMs: latencyNs / 1e6, readZeroes: readZeroes ?? false }),
      name: common.nodeName,
      origin: { plainName: size === undefined && readZeroes === undefined ? `${name}://` : null, strong: { size, 'read-zeroes': readZeroes } },
    };
  },
}));
