import { GiB } from '../base/bytes.js';
import { NullDriver } from '../protocol/null.js';
import type { DriverDefinition } from './drivers.js';
import { invalid } from './options.js';

export const NULL_DRIVERS: readonly DriverDefinition[] = (['null-co', 'null-aio'] as const).map((name) => ({
  name,
  protocol: true,
  open: async ({ options, common }) => {
    const bytes = options.size('size') ?? GiB;
    const latencyNs = options.number('latency-ns') ?? 0;
    const readZeroes = options.bool('read-zeroes', false);
    options.string('filename');
    if (latencyNs < 0) throw invalid('latency-ns is invalid');
    return { name: common.nodeName, driver: new NullDriver({ bytes, formatName: name, latencyMs: latencyNs / 1e6, readZeroes }) };
  },
}));
