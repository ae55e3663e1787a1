/** Filters show the node below as it is, so they must do what every driver must. */
import { KiB, MiB } from '../../src/base/bytes.js';
import { BlockNode } from '../../src/block/node.js';
import { makeRequest, type BlockRequest } from '../../src/block/request.js';
import { ThrottleGroup } from '../../src/block/throttle.js';
import { BlkdebugDriver } from '../../src/filter/blkdebug.js';
import { BlkverifyFilter } from '../../src/filter/blkverify.js';
import { CopyOnReadFilter } from '../../src/filter/copy-on-read.js';
import { PreallocateFilter } from '../../src/filter/preallocate.js';
import { QuorumDriver } from '../../src/filter/quorum.js';
import { ThrottleFilter } from '../../src/filter/throttle.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { driverSuite } from './driver-suite.js';

function memory(bytes: number): BlockNode {
  return new BlockNode({ name: 'memory', driver: new MemoryDriver({ bytes }) });
}

/** Discards end in these two, so what they leave is no zeros: the suite's are turned to zeroes. */
function discardAsZero(request: BlockRequest): BlockRequest {
  return request.op === 'discard' ? makeRequest('write', request.offset, request.bytes, new Uint8Array(request.bytes)) : request;
}

class ZeroingQuorum extends QuorumDriver {
  override submit(request: BlockRequest): Promise<void> { return super.submit(discardAsZero(request)); }
}

class ZeroingBlkverify extends BlkverifyFilter {
  override submit(request: BlockRequest): Promise<void> { return super.submit(discardAsZero(request)); }
}

driverSuite('throttle', {
  make: async (bytes) => new ThrottleFilter({ child: memory(bytes), group: new ThrottleGroup('group', { 'iops-total': 1e6 }) }),
  stores: true,
});
driverSuite('copy-on-read', { make: async (bytes) => new CopyOnReadFilter({ child: memory(bytes) }), stores: true });
driverSuite('preallocate', { make: async (bytes) => new PreallocateFilter({ child: memory(bytes), align: 4 * KiB, size: 64 * KiB }), stores: true });
driverSuite('quorum', {
  make: async (bytes) => new ZeroingQuorum({ children: [memory(bytes), memory(bytes), memory(bytes)], voteThreshold: 2 }),
  stores: true,
});
driverSuite('quorum, first come', {
  make: async (bytes) => new ZeroingQuorum({ children: [memory(bytes), memory(bytes)], voteThreshold: 2, readPattern: 'fifo' }),
  stores: true,
});
driverSuite('blkverify', { make: async (bytes) => new ZeroingBlkverify({ test: memory(bytes), raw: memory(bytes) }), stores: true });
driverSuite('blkdebug without rules', { make: async (bytes) => new BlkdebugDriver({ image: memory(bytes) }), stores: true });
driverSuite('blkdebug with limits', {
  make: async (bytes) => new BlkdebugDriver({ image: memory(bytes), maxTransfer: 3000, optWriteZero: 2 * KiB, maxWriteZero: 8 * KiB, maxDiscard: MiB }),
  stores: true,
});
