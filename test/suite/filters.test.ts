/** Filters show the node below as it is, so they must do what every driver must. */
import { BlockNode } from '../../src/block/node.js';
import { ThrottleGroup } from '../../src/block/throttle.js';
import { CopyOnReadFilter } from '../../src/filter/copy-on-read.js';
import { ThrottleFilter } from '../../src/filter/throttle.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { driverSuite } from './driver-suite.js';

function memory(bytes: number): BlockNode {
  return new BlockNode({ name: 'memory', driver: new MemoryDriver({ bytes }) });
}

driverSuite('throttle', {
  make: async (bytes) => new ThrottleFilter({ child: memory(bytes), group: new ThrottleGroup('group', { 'iops-total': 1e6 }) }),
  stores: true,
});
driverSuite('copy-on-read', { make: async (bytes) => new CopyOnReadFilter({ child: memory(bytes) }), stores: true });
