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
  const done = (verb: BitmapVerb) => async (args: JsonDict): Promise<void> => { await verb(daemon, args); };
  return {
    'block-dirty-bitmap-add': done(VERBS['block-dirty-bitmap-add']),
    'block-dirty-bitmap-remove': (args) => removeBitmap(nodeOf(daemon, args), args['name'] as string),
    'block-dirty-bitmap-clear': done(VERBS['block-dirty-bitmap-clear']),
    'block-dirty-bitmap-enable': done(VERBS['block-dirty-bitmap-enable']),
    'block-dirty-bitmap-disable': done(VERBS['block-dirty-bitmap-disable']),
    'block-dirty-bitmap-merge': done(VERBS['block-dirty-bitmap-merge']),
    'x-debug-block-dirty-bitmap-sha256': (args) => ({ sha256: findBitmap(nodeOf(daemon, args), args['name'] as string).sha256() }),
  };
}

type BitmapVerb = (daemon: StorageDaemon, args: JsonDict) => Promise<Undo>;

const VERBS = {
  'block-dirty-bitmap-add': (daemon, args) => addBitmap(daemon.graph.lookUp(args['node'] as string), {
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

/** The node of a bitmap that is there already; QEMU has a sentence of its own for this. */
function nodeOf({ graph }: StorageDaemon, { node }: JsonDict): BlockNode {
  const found = graph.find(node as string);
  if (found === undefined) throw new BlockError('NOT_FOUND', `Node '${node as string}' not found`);
  return found;
}

function merge(daemon: StorageDaemon, args: JsonDict): Promise<Undo> {
  // nodes are looked up when it is their turn: which one is missing first matters
  const sources = (args['bitmaps'] as readonly Json[]).map((source): BitmapSource => (typeof source === 'string' ? source : {
    get node() { return nodeOf(daemon, source as JsonDict); }, name: (source as JsonDict)['name'] as string,
  }));
  return mergeBitmaps(nodeOf(daemon, args), args['target'] as string, sources);
}
