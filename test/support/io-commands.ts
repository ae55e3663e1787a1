/** The same requests to the same tree of nodes, by qemu-io and by ours, with one outcome each. */
import { BlockError, BlockGraph, errnoOf, openBlockdev, type BlockdevContext, type BlockNode } from '../../src/index.js';
import { run } from './run.js';

export interface IoCommand {
  /** As qemu-io takes it. */
  readonly text: string;
  readonly run: (node: BlockNode) => Promise<unknown>;
}

/** What a read finds must be `pattern`, where one is given. */
export function read(offset: number, bytes: number, pattern?: number): IoCommand {
  return {
    text: `read ${pattern === undefined ? '' : `-P ${pattern} `}${offset} ${bytes}`,
    run: async (node) => {
      const found = new Uint8Array(bytes);
      await node.read(offset, found);
      if (pattern !== undefined && found.some((byte) => byte !== pattern)) throw new BlockError('IO', MISMATCH);
    },
  };
}

export function write(offset: number, bytes: number, pattern = 0xcd): IoCommand {
  return { text: `write -P ${pattern} ${offset} ${bytes}`, run: (node) => node.write(offset, new Uint8Array(bytes).fill(pattern)) };
}

export function zero(offset: number, bytes: number): IoCommand {
  return { text: `write -z ${offset} ${bytes}`, run: (node) => node.writeZeroes(offset, bytes) };
}

export function discard(offset: number, bytes: number): IoCommand {
  return { text: `discard ${offset} ${bytes}`, run: (node) => node.discard(offset, bytes) };
}

/** Of a flush that succeeds qemu-io says nothing, so it has no outcome there. */
export const flush: IoCommand = { text: 'flush', run: (node) => node.flush() };

const MISMATCH = 'Pattern verification failed';
export const ERRNO_TEXTS: Readonly<Record<string, string>> = {
  EIO: 'Input/output error', ENOSPC: 'No space left on device', ENOMEM: 'Cannot allocate memory', EBUSY: 'Device or resource busy',
};

export type Tree = Parameters<typeof openBlockdev>[1];

/** One outcome per command, or only that of opening. */
export async function underQemu(tree: Tree, commands: readonly IoCommand[]): Promise<string[]> {
  const { stdout, stderr } = await run('qemu-io', ['-t', 'writeback', ...commands.flatMap(({ text }) => ['-c', text]), `json:${JSON.stringify(tree)}`]);
  if (stderr.includes("can't open")) return [`open: ${stderr.trim().split(': ').at(-1)}`];
  const outcomes: string[] = [];
  let told = false; // after a mismatch the line that tells of the read follows
  for (const line of `${stdout}\n${stderr}`.split('\n')) {
    const failure = / failed: (.*)$/.exec(line);
    const success = /^(?:read|wrote|discard) \d+\/\d+ bytes/.test(line);
    if (line.startsWith(MISMATCH)) outcomes.push(MISMATCH);
    else if (failure !== null) outcomes.push(failure[1]!);
    else if (success && !told) outcomes.push('ok');
    told = line.startsWith(MISMATCH);
  }
  return outcomes;
}

export async function underOurs(tree: Tree, commands: readonly IoCommand[], context: BlockdevContext = {}): Promise<string[]> {
  let node: BlockNode | null = null;
  const opened = await outcomeOf(async () => { node = await openBlockdev(new BlockGraph(), { 'node-name': 'top', discard: 'unmap', ...tree }, context); });
  if (opened !== 'ok') return [`open: ${opened}`];
  const outcomes: string[] = [];
  for (const command of commands) outcomes.push(await outcomeOf(() => command.run(node!)));
  await node!.close().catch(() => {});
  return outcomes;
}

async function outcomeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'ok';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return ERRNO_TEXTS[errnoOf(error) ?? ''] ?? error.message;
  }
}
