/** The fixed work again, failed by blkdebug at each of the points that qcow2 tells of: once, or every write from there on. */
import { beforeAll, describe, expect, test } from '@jest/globals';
import { BlockNode } from '../../src/block/node.js';
import type { BlockRequest } from '../../src/block/request.js';
import { BlkdebugDriver } from '../../src/filter/blkdebug.js';
import { makeRule } from '../../src/filter/blkdebug-rules.js';
import type { SimDisk } from '../support/sim-disk.js';
import { FAULT_SETTINGS, FaultBase, runFaulty } from './fault-run.js';

const EVENTS: Readonly<Record<string, readonly string[]>> = {
  plain: [
    'l1_grow_alloc_table', 'l1_grow_write_table', 'l1_grow_activate_table', 'l1_update', 'l2_load', 'l2_update', 'read_aio', 'write_aio',
    'cow_read', 'cow_write', 'reftable_load', 'refblock_load', 'refblock_update_part', 'cluster_alloc', 'cluster_free', 'flush_to_os', 'flush_to_disk',
    'vmstate_save', 'l2_alloc_write', 'l1_shrink_write_table', 'l1_shrink_free_l2_clusters', 'pwritev', 'pwritev_done', 'none',
  ],
  'tiny-caches': ['l2_load', 'l2_update', 'refblock_load', 'refblock_update_part', 'cluster_free'],
  lazy: ['l1_update', 'refblock_update_part', 'flush_to_disk', 'cluster_alloc'],
  'table-growth': [
    'reftable_grow', 'refblock_alloc', 'refblock_alloc_write', 'refblock_alloc_hookup', 'refblock_alloc_write_blocks', 'refblock_alloc_write_table',
    'refblock_alloc_switch_table',
  ],
};

class Watched extends BlkdebugDriver {
  hit: string | null = null;

  override async submit(request: BlockRequest): Promise<void> {
    try {
      await super.submit(request);
    } catch (error) {
      this.hit ??= `${request.op} ${request.offset} ${request.bytes}`;
      throw error;
    }
  }
}

function failing(event: string, once: boolean, errno: number): (disk: SimDisk) => Watched {
  const rule = makeRule('inject-error', new Map<string, string | number | boolean>([['event', event], ['once', once], ['errno', errno], ['immediately', errno === 28],
    ...once ? [] : [['iotype', 'write'] as const]])); // what is there must stay readable
  return (disk) => new Watched({ image: new BlockNode({ name: 'disk', driver: disk, pinned: true }), rules: [rule] });
}

describe.each(Object.entries(EVENTS))('%s', (name, events) => {
  let base: FaultBase;
  beforeAll(async () => { base = await FaultBase.make(FAULT_SETTINGS.find((setting) => setting.name === name)!); });

  test.each(events)('%s', async (event) => {
    for (const [once, errno] of [[true, 5], [false, 28]] as const) {
      const hit = await runFaulty(base, 1, `${event}, errno ${errno}${once ? ' once' : ''}`, failing(event, once, errno));
      expect({ event, hit }).toEqual({ event, hit: expect.any(String) });
    }
  });
});
