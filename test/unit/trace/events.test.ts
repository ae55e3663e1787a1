/** QEMU's trace events in our log: the lines of the founding article. */
import { afterEach, expect, test } from '@jest/globals';
import { createImage, openImage } from '../../../src/image/open.js';
import { EventLog, events, matchingEvents } from '../../../src/trace/events.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
afterEach(() => { events.log = null; });

test('names and patterns', () => {
  expect(matchingEvents('qcow2_l2_*')).toEqual(['qcow2_l2_allocate', 'qcow2_l2_allocate_get_empty', 'qcow2_l2_allocate_write_l2', 'qcow2_l2_allocate_write_l1', 'qcow2_l2_allocate_done']);
  expect(matchingEvents('mirror.start')).toEqual([]);
  expect(() => new EventLog(['qcow2_*', 'no*such'], () => undefined, (pattern) => new Error(pattern))).toThrow('no*such');
});

test('a write that takes a new cluster tells what the article shows', async () => {
  await createImage(tmp('x.qcow2'), { format: 'qcow2', size: 1 << 30, clusterSize: 1 << 20 });
  const node = await openImage(tmp('x.qcow2'));
  const lines: string[] = [];
  events.log = new EventLog(['qcow2_*'], (line, stamp) => lines.push(stamp + line), (pattern) => new Error(pattern));
  await node.write(0x12_3000, Buffer.alloc(20_480, 1));
  await node.flush();
  // now the cluster is there
  await node.write(0x12_4000, Buffer.alloc(4096, 2));
  events.log = null;
  await node.close();
  const plain = lines.map((line) => line.replace(/^\d+@\d+\.\d{6}:/, '').replaceAll(/(co|bs) 0x[\da-f]+/g, '$1 *'));
  expect(plain).toEqual(expect.arrayContaining([
    'qcow2_writev_start_req co * offset 0x123000 bytes 20480', 'qcow2_writev_start_part co *', 'qcow2_alloc_clusters_offset co * offset 0x123000 bytes 20480',
    'qcow2_l2_allocate bs * l1_index 0', 'qcow2_cache_get co * is_l2_cache 0 offset 0x200000 read_from_disk 1', 'qcow2_l2_allocate_get_empty bs * l1_index 0',
    'qcow2_l2_allocate_done bs * l1_index 0 ret 0', 'qcow2_cluster_link_l2 co * nb_clusters 1', 'qcow2_writev_done_req co * ret 0', 'qcow2_cache_flush co * is_l2_cache 1',
    'qcow2_handle_copied co * guest_offset 0x124000 host_offset 0x0 bytes 0x1000',
  ]));
  expect(plain[0]).toMatch(/^qcow2_writev_start_req/);
  const requests = new Set(lines.flatMap((line) => /:qcow2_writev_\w+ co (\w+)/.exec(line)?.[1] ?? []));
  expect(requests.size).toBe(2);
  // of others nothing was asked, and nothing is told now
  const count = lines.length;
  const again = await openImage(tmp('x.qcow2'));
  await again.write(0, Buffer.alloc(512, 1));
  await again.close();
  expect(lines.length).toBe(count);
});
