import { expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { nodeFilename } from '../../../src/image/filename.js';
import { createImage } from '../../../src/image/open.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();

test('a long chain of overlays that name no backing file is named in no time', async () => {
  const graph = new BlockGraph();
  const depth = 25;
  await openBlockdev(graph, { driver: 'null-co', 'node-name': 'n0', size: 65536, 'read-only': true });
  for (let level = 1; level <= depth; level++) {
    const path = tmp(`${level}.qcow2`);
    await createImage(path, { format: 'qcow2', size: 65536 });
    await openBlockdev(graph, { driver: 'qcow2', 'node-name': `n${level}`, file: { driver: 'file', filename: path }, backing: `n${level - 1}`, 'read-only': true });
  }
  const name = nodeFilename(graph.get(`n${depth}`));
  expect(name.match(/"backing": /g)).toHaveLength(depth);
  expect(name).toContain('{"driver": "null-co", "size": 65536}');
  await graph.closeAll();
});
