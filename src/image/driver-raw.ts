import { RawDriver } from '../format/raw.js';
import type { DriverDefinition } from './drivers.js';

export const RAW_DRIVER: DriverDefinition = {
  name: 'raw',
  protocol: false,
  open: async (context) => {
    const { options } = context;
    const offset = options.size('offset');
    const size = options.size('size');
    const file = await context.child('file', (offset ?? 0) === 0 && size === undefined ? 'filtered' : 'data');
    return { driver: new RawDriver(file, { offset, size }), origin: { strong: { offset, size } } };
  },
  mutable: ['offset', 'size'],
  reopen: (context) => {
    const { node, options } = context;
    const window = { offset: options.size('offset'), size: options.size('size') };
    const { driver } = node;
    const file = context.child('file');
    if (!(driver instanceof RawDriver) || file === null) return {};
    const commit = driver.changeWindow(file, window);
    return { strong: window, prepare: async () => ({ commit, abort: () => {} }) };
  },
};
