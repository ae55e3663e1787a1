/** x-blockdev-change where users conflict: the quorum stays as it was. */
import { expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { Permission } from '../../../src/block/permissions.js';
import { nodeCommands } from '../../../src/daemon/commands-node.js';
import type { StorageDaemon } from '../../../src/daemon/daemon.js';
import { openBlockdev } from '../../../src/image/blockdev.js';

test('a child that cannot be written is not added', async () => {
  const graph = new BlockGraph();
  for (const name of ['a', 'b', 'c', 'd']) await openBlockdev(graph, { driver: 'null-co', 'node-name': name, 'read-zeroes': true, 'read-only': name === 'c' });
  const quorum = await openBlockdev(graph, { driver: 'quorum', 'node-name': 'q', children: ['a', 'b'], 'vote-threshold': 1 });
  const writer = await graph.attach(quorum, { used: Permission.WRITE, shared: Permission.ALL });
  const change = nodeCommands({ graph } as StorageDaemon)['x-blockdev-change'] as unknown as (args: unknown, session: unknown) => Promise<unknown>;
  await expect(change({ parent: 'q', node: 'c' }, null)).rejects.toThrow('Block node is read-only');
  expect(quorum.children.map(({ node }) => node.nodeName)).toEqual(['a', 'b']);
  expect(graph.get('c').parents.size).toBe(0);
  await change({ parent: 'q', node: 'd' }, null);
  expect(quorum.children.map(({ edge, node }) => [edge, node.nodeName])).toEqual([['children.0', 'a'], ['children.1', 'b'], ['children.2', 'd']]);
  await graph.detach(writer);
  await graph.closeAll();
});
