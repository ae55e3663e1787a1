import { MemoryDriver } from '../../src/protocol/memory.js';
import { driverSuite } from './driver-suite.js';

driverSuite('memory', { stores: true, make: async (bytes) => new MemoryDriver({ bytes }) });

driverSuite('memory of fixed size', { stores: true, make: async (bytes) => new MemoryDriver({ bytes, growable: false }) });

for (const requestAlignment of [512, 4096]) {
  driverSuite(`memory with ${requestAlignment}-byte alignment`, {
    stores: true,
    make: async (bytes) => new MemoryDriver({ bytes, limits: { requestAlignment, memoryAlignment: 4096, maxTransfer: 16384 } }),
  });
}
