import {
  addBitmap, BlockError, clearBitmap, disableBitmap, enableBitmap, mergeBitmaps, messageOf, openImage, removeBitmap, type BlockNode,
} from '../../src/index.js';
import { BACKING, FORMAT_CHOICES, TRACING } from '../common-options.mjs';
import { defineCommand, UsageError } from '../command.mjs';

const ACTIONS = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;
type Action = (typeof ACTIONS)[number];

export const command = defineCommand({
  description: 'Changes a persistent dirty bitmap of an image: which parts of the disk were written since it was cleared. ' +
    'Several actions are done in the order in which they are given; the first that fails ends the command.',
  positionals: {
    file: { help: 'the image' },
    bitmap: { help: 'name of the bitmap' },
  },
  options: {
    add: { type: 'boolean', help: 'add an empty bitmap, which records from now on' },
    remove: { type: 'boolean', help: 'remove the bitmap' },
    clear: { type: 'boolean', help: 'make all of it clean' },
    enable: { type: 'boolean', help: 'record from now on' },
    disable: { type: 'boolean', help: 'record no longer' },
    merge: { type: 'string', array: true, repeated: true, value: 'SOURCE', help: 'what is dirty in the bitmap SOURCE becomes dirty in this one too' },
    granularity: { type: 'size', alias: 'g', help: 'with --add: bytes that one bit stands for; by default the cluster size, between 4K and 64K' },
    'source-file': { type: 'string', alias: 'b', value: 'FILE', help: 'with --merge: the image that has the bitmap SOURCE' },
    'source-format': { type: 'string', alias: 'F', choices: FORMAT_CHOICES, help: 'format of that image' },
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    backing: BACKING,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce image bitmap --add disk.qcow2 changes', does: 'record what is written from now on' },
    { line: 'quiesce image bitmap --add --disable --merge monday --merge tuesday disk.qcow2 both', does: 'a union of two bitmaps' },
    { line: 'quiesce image bitmap --merge changes -b old.qcow2 disk.qcow2 changes', does: 'take over the bitmap of another image' },
  ],
  usageExitCode: 1,
  run: async ({ file, bitmap, merge, granularity, sourceFile, sourceFormat, format, backing }, { given }) => {
    const actions = given.filter((name): name is Action => (ACTIONS as readonly string[]).includes(name));
    if (actions.length === 0) throw new UsageError('Need at least one of --add, --remove, --clear, --enable, --disable, or --merge');
    if (granularity !== undefined && !actions.includes('add')) throw new UsageError('granularity only supported with --add');
    if (sourceFile !== undefined && !actions.includes('merge')) throw new UsageError('Merge bitmap source file only supported with --merge');
    if (sourceFormat !== undefined && sourceFile === undefined) throw new UsageError('-F only supported with -b');
    const open: BlockNode[] = [];
    try {
      open.push(await openImage(file, { format, backing }));
      if (sourceFile !== undefined) open.push(await openImage(sourceFile, { format: sourceFormat, backing, readOnly: true }));
      const details = { granularity: granularity === 0 ? undefined : granularity, from: open.at(-1)!, sources: [...merge] };
      for (const action of actions) await act(open[0]!, bitmap, action, details);
    } finally {
      for (const node of open.reverse()) await node.close();
    }
  },
});

interface Details {
  readonly granularity: number | undefined;
  readonly from: BlockNode;
  /** Names of bitmaps to merge that are still to come. */
  readonly sources: string[];
}

async function act(node: BlockNode, name: string, action: Action, details: Details): Promise<void> {
  try {
    await perform(node, name, action, details);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.code, `Operation ${action} on bitmap ${name} failed: ${messageOf(error)}`, { cause: error });
  }
}

async function perform(node: BlockNode, name: string, action: Action, { granularity, from, sources }: Details): Promise<void> {
  switch (action) {
    case 'add':
      await addBitmap(node, { name, granularity, persistent: true });
      return;
    case 'remove':
      await removeBitmap(node, name);
      return;
    case 'clear':
      await clearBitmap(node, name);
      return;
    case 'enable':
      await enableBitmap(node, name);
      return;
    case 'disable':
      await disableBitmap(node, name);
      return;
    case 'merge':
      await mergeBitmaps(node, name, [{ node: from, name: sources.shift()! }]);
  }
}
