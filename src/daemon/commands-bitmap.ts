/** QMP: dirty bitmaps. */
import {
  addBitmap, clearBitmap, disableBitmap, enableBitmap, findBitmap, mergeBitmaps, prepareRemoveBitmap, removeBitmap, type BitmapSource, type Undo,
} from '../block/bitmap-verbs.js';
import { BlockError } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import type { CommandTable } from '../qmp/server.js';
import type { Json, JsonDict } from '../qobject/value.js';
import type { StorageDaemon } from './daemon.js';
import type { PreparedAction } from './transaction.js';

export function bitmapCommands(daemon: StorageDaemon): CommandTable {
  const { graph } = daemon;
  const done = (verb: BitmapVerb) => async (args: JsonDict): Promise<void> => { await verb(daemon, args); };
  return {
    'block-dirty-bitmap-add': done(VERBS['block-dirty-bitmap-add']),
    'block-dirty-bitmap-remove': (args) => removeBitmap(nodeOf(daemon, args), args['name'] as string),
    'block-dirty-bitmap-clear': done(VERBS['block-dirty-bitmap-clear']),
    'block-dirty-bitmap-enable': done(VERBS['block-dirty-bitmap-enable']),
    'block-dirty-bitmap-disable': done(VERBS['block-dirty-bitmap-disable']),
    'block-dirty-bitmap-merge': done(VERBS['block-dirty-bitmap-merge']),
    'x-debug-block-dirty-bitmap-sha256': ({ node, name }) => ({ sha256: findBitmap(graph.lookUp(node as string), name as string).sha256() }),
  };
}

type BitmapVerb = (daemon: StorageDaemon, args: JsonDict) => Promise<Undo>;

const VERBS = {
  'block-dirty-bitmap-add': (daemon, args) => addBitmap(nodeOf(daemon, args), {
    name: args['name'] as string, granularity: args['granularity'] as number | undefined,
    persistent: args['persistent'] as boolean | undefined, disabled: args['disabled'] as boolean | undefined,
  }),
  'block-dirty-bitmap-clear': (daemon, args) => clearBitmap(nodeOf(daemon, args), args['name'] as string),
  'block-dirty-bitmap-enable': (daemon, args) => enableBitmap(nodeOf(daemon, args), args['name'] as string),
  'block-dirty-bitmap-disable': (daemon, args) => disableBitmap(nodeOf(daemon, args), args['name'] as string),
  'block-dirty-bitmap-merge': (daemon, args) => merge(daemon, args),
} as const satisfies Readonly<Record<string, BitmapVerb>>;

/** The same as parts of a transaction. */
export async function prepareBitmapAction(daemon: StorageDaemon, type: string, args: JsonDict): Promise<PreparedAction> {
  if (type === 'block-dirty-bitmap-remove') {
    const removal = await prepareRemoveBitmap(nodeOf(daemon, args), args['name'] as string);
    return { commit: async () => removal.commit(), abort: async () => removal.abort() };
  }
  const undo = await VERBS[type as keyof typeof VERBS](daemon, args);
  return { abort: undo };
}

function nodeOf({ graph }: StorageDaemon, { node }: JsonDict): BlockNode {
  return graph.lookUp(node as string);
}

function merge(daemon: StorageDaemon, args: JsonDict): Promise<Undo> {
  const sources = (args['bitmaps'] as readonly Json[]).map((source): BitmapSource => {
    if (typeof source === 'string') return source;
    const { node, name } = source as JsonDict;
    const found = daemon.graph.find(node as string);
    if (found === undefined) throw new BlockError('NOT_FOUND', `Node '${node as string}' not found`);
    return { node: found, name: name as string };
  });
  return mergeBitmaps(nodeOf(daemon, args), args['target'] as string, sources);
}
