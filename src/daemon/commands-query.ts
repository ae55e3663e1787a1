/** QMP: what the graph looks like. */
import { BlockBackend } from '../block/backend.js';
import type { BlockChild } from '../block/child.js';
import { blockDeviceInfo, blockStats, permissionList } from '../image/node-info.js';
import type { CommandTable } from '../qmp/server.js';
import type { Json, JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';

export function queryCommands(daemon: StorageDaemon): CommandTable {
  const { graph } = daemon;
  return {
    // devices have names or hang on a machine; there are none here
    'query-block': () => [],
    'query-blockstats': (args) => args['query-nodes'] === true ? graph.nodes().map((node) => blockStats(node) as JsonDict) : [],
    'query-named-block-nodes': async ({ flat }) => {
      const infos: Json[] = [];
      for (const node of graph.nodes()) {
        const info = await blockDeviceInfo(node, flat === true);
        infos.push({ ...info as JsonDict, write_threshold: daemon.thresholds.of(node) });
      }
      return infos.reverse();
    },
    'x-debug-query-block-graph': () => blockGraph(daemon),
  };
}

/** QAPI's XDbgBlockGraph: who is above whom, with what they do. */
function blockGraph({ graph, blockJobs }: StorageDaemon): JsonDict {
  const ids = new Map<object, number>();
  const idOf = (thing: object): number => {
    const known = ids.get(thing) ?? ids.size + 1;
    ids.set(thing, known);
    return known;
  };
  const nodes: JsonDict[] = [];
  const edges: JsonDict[] = [];
  const doors = new Set(graph.nodes().flatMap((node) => [...node.parents].filter((user) => user instanceof BlockBackend)));
  for (const door of [...doors].sort((a, b) => a.serial - b.serial)) {
    nodes.push({ id: idOf(door), type: 'block-backend', name: door.name });
    edges.push({ parent: idOf(door), child: idOf(door.node), name: 'root', ...uses(door.use) });
  }
  for (const blockJob of blockJobs.list()) {
    nodes.push({ id: idOf(blockJob), type: 'block-job', name: blockJob.job.id });
    for (const edge of [...blockJob.nodes].reverse()) edges.push({ parent: idOf(blockJob), child: idOf(edge.node), name: edge.edge, ...uses(edge.use) });
  }
  for (const node of graph.nodes()) {
    nodes.push({ id: idOf(node), type: 'block-driver', name: node.nodeName });
    for (const child of [...node.children].reverse()) edges.push({ parent: idOf(node), child: idOf(child.node), name: child.edge, ...uses(child.use) });
  }
  // the newest first, as a list that grows at its head
  return { nodes: nodes.reverse(), edges: edges.reverse() };
}

function uses({ used, shared }: BlockChild['use']): JsonDict {
  return { perm: permissionList(used), 'shared-perm': permissionList(shared) };
}
