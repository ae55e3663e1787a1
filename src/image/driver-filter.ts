/** The filters, and quorum, as drivers of a node tree. */
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { BlkdebugDriver, parseBlkdebugName, readBlkdebugConfig } from '../filter/blkdebug.js';
import { knowsOption, makeRule, type BlkdebugRule } from '../filter/blkdebug-rules.js';
import { BlkverifyFilter, parseBlkverifyName } from '../filter/blkverify.js';
import { CopyOnReadFilter } from '../filter/copy-on-read.js';
import { PreallocateFilter } from '../filter/preallocate.js';
import { checkQuorum, QuorumDriver } from '../filter/quorum.js';
import { ThrottleFilter } from '../filter/throttle.js';
import { plainName } from './filename.js';
import type { DriverContext, DriverDefinition, OpenedDriver, ReopenContext, ReopenedDriver } from './drivers.js';
import { imageOptions, protocolOptions } from './image-name.js';
import { extractOptions, invalid, treeOf, type FlatOptions, type NodeOptionsReader } from './options.js';

export const FILTER_DRIVERS: readonly DriverDefinition[] = [
  { name: 'throttle', protocol: false, open: openThrottle, mutable: ['throttle-group'], reopen: reopenThrottle },
  { name: 'copy-on-read', protocol: false, open: openCopyOnRead },
  { name: 'preallocate', protocol: false, open: openPreallocate, mutable: ['prealloc-align', 'prealloc-size'], reopen: reopenPreallocate },
  { name: 'quorum', protocol: false, open: openQuorum },
  { name: 'blkverify', protocol: true, open: openBlkverify },
  { name: 'blkdebug', protocol: true, open: openBlkdebug, reopen: () => ({}) },
];

async function openThrottle(context: DriverContext): Promise<OpenedDriver> {
  const name = context.options.string('throttle-group');
  const child = await context.child('file', 'filtered');
  if (name === undefined) throw invalid('Please specify a throttle group');
  const group = context.throttleGroup?.(name);
  if (group === undefined) throw invalid(`Throttle group '${name}' does not exist`);
  return { driver: new ThrottleFilter({ child, group }), origin: { strong: { 'throttle-group': name } } };
}

function reopenThrottle({ node: { driver }, options, throttleGroup }: ReopenContext): ReopenedDriver {
  const name = options.string('throttle-group');
  if (name === undefined) throw invalid('Please specify a throttle group');
  const group = throttleGroup?.(name);
  if (group === undefined) throw invalid(`Throttle group '${name}' does not exist`);
  const commit = (): void => { if (driver instanceof ThrottleFilter) driver.setGroup(group); };
  return { strong: { 'throttle-group': name }, prepare: async () => ({ commit, abort: () => {} }) };
}

function reopenPreallocate({ node: { driver }, options }: ReopenContext): ReopenedDriver {
  const align = options.size('prealloc-align');
  const size = options.size('prealloc-size');
  const commit = driver instanceof PreallocateFilter ? driver.changeRoom(align, size) : () => {};
  return { prepare: async () => ({ commit, abort: () => {} }) };
}

async function openCopyOnRead(context: DriverContext): Promise<OpenedDriver> {
  const child = await context.child('file', 'filtered', { used: Permission.WRITE_UNCHANGED, shared: Permission.ALL });
  const name = context.options.string('bottom');
  const bottom = name === undefined ? null : context.graph.find(name);
  if (bottom === undefined) throw invalid(`Bottom node '${name}' not found`);
  return { driver: new CopyOnReadFilter({ child, bottom }) };
}

async function openPreallocate(context: DriverContext): Promise<OpenedDriver> {
  const { options } = context;
  const child = await context.child('file', 'filtered');
  const align = options.size('prealloc-align');
  const size = options.size('prealloc-size');
  return { driver: new PreallocateFilter({ child, ...(align === undefined ? {} : { align }), ...(size === undefined ? {} : { size }) }) };
}

async function openQuorum(context: DriverContext): Promise<OpenedDriver> {
  const { options } = context;
  const edges: string[] = [];
  while (context.defines(`children.${edges.length}`)) edges.push(`children.${edges.length}`);
  const givenVoting = treeOf(new Map([...options.flat].filter(([name]) => ['blkverify', 'rewrite-corrupted', 'read-pattern'].includes(name))));
  const voteThreshold = options.number('vote-threshold') ?? 0;
  const readPattern = options.string('read-pattern') ?? 'quorum';
  const voting = {
    voteThreshold,
    readPattern: readPattern as 'quorum' | 'fifo',
    blkverify: options.bool('blkverify', false),
    rewriteCorrupted: options.bool('rewrite-corrupted', false),
  };
  if (edges.length === 0 || voteThreshold < 1 || voteThreshold > edges.length) checkQuorum({ ...voting, children: edges });
  if (readPattern !== 'quorum' && readPattern !== 'fifo') throw invalid('Please set read-pattern as fifo or quorum');
  checkQuorum({ ...voting, children: edges });
  const children: BlockNode[] = [];
  for (const edge of edges) children.push(await context.child(edge, 'data'));
  const { onEvent } = context;
  const strong = { 'vote-threshold': voteThreshold, ...givenVoting };
  return { name: context.common.nodeName, origin: { strong }, driver: new QuorumDriver({ ...voting, children, ...(onEvent === undefined ? {} : { onEvent }) }) };
}

async function openBlkverify(context: DriverContext): Promise<OpenedDriver> {
  const { options } = context;
  const name = options.string('filename');
  if (name !== undefined) {
    const { raw, image } = parseBlkverifyName(name);
    define(options.flat, 'raw', await protocolOptions(raw));
    define(options.flat, 'test', await imageOptions(image)); // its format is found out
  }
  const raw = await context.child('raw', 'filtered');
  const test = await context.child('test', 'data');
  const [rawName, testName] = [plainName(raw), plainName(test)];
  return { driver: new BlkverifyFilter({ test, raw }), origin: { plainName: rawName === null || testName === null ? null : `blkverify:${rawName}:${testName}` } };
}

const BLKDEBUG_STRONG = /^(?:config|align|max-transfer|opt-write-zero|max-write-zero|opt-discard|max-discard|(?:inject-error|set-state)\..*)$/;

async function openBlkdebug(context: DriverContext): Promise<OpenedDriver> {
  const { options } = context;
  const name = options.string('filename');
  if (name !== undefined) {
    const { config, image } = parseBlkdebugName(name);
    if (config !== null && !options.has('config')) options.flat.set('config', config);
    define(options.flat, 'image', await protocolOptions(image));
  }
  // QEMU leaves the rules flat when it tells of them
  const strong = Object.fromEntries([...options.flat].filter(([name]) => BLKDEBUG_STRONG.test(name)).reverse());
  const config = options.string('config');
  const limits = {
    align: options.size('align'), maxTransfer: options.size('max-transfer'), optWriteZero: options.size('opt-write-zero'),
    maxWriteZero: options.size('max-write-zero'), optDiscard: options.size('opt-discard'), maxDiscard: options.size('max-discard'),
  };
  const rules = [...config === undefined ? [] : await readBlkdebugConfig(config), ...inlineRules(options.flat, 'inject-error'), ...inlineRules(options.flat, 'set-state')];
  const perms = { takeChildPerms: permissionList(options, 'take-child-perms'), unshareChildPerms: permissionList(options, 'unshare-child-perms') };
  const image = await context.child('image', 'filtered');
  const below = plainName(image);
  const plain = below === null || Object.keys(strong).some((option) => option !== 'config') ? null : `blkdebug:${config ?? ''}:${below}`;
  return { driver: new BlkdebugDriver({ image, rules, ...limits, ...perms }), origin: { strong, plainName: plain } };
}

/** A child by a file name that stands inside another one. */
function define(flat: FlatOptions, edge: string, child: FlatOptions): void {
  for (const [name, value] of child) flat.set(`${edge}.${name}`, value);
}

/** `inject-error.0.event`, … */
function inlineRules(flat: FlatOptions, kind: BlkdebugRule['kind']): readonly BlkdebugRule[] {
  const all = extractOptions(flat, kind);
  const rules: BlkdebugRule[] = [];
  for (let index = 0; ; index++) {
    const options = extractOptions(all, String(index));
    if (options.size === 0) break;
    for (const name of options.keys()) if (!knowsOption(kind, name)) throw invalid(`[${kind}] section doesn't support the option '${name}'`);
    rules.push(makeRule(kind, options));
  }
  for (const name of all.keys()) throw invalid(`Unused option '${name}' for [${kind}]`);
  return rules;
}

const PERMISSIONS: Readonly<Record<string, number>> = {
  'consistent-read': Permission.CONSISTENT_READ, write: Permission.WRITE, 'write-unchanged': Permission.WRITE_UNCHANGED, resize: Permission.RESIZE,
};

function permissionList(options: NodeOptionsReader, name: string): number {
  let mask = 0;
  for (let index = 0; options.has(`${name}.${index}`); index++) {
    const value = options.string(`${name}.${index}`)!;
    const bit = PERMISSIONS[value];
    if (bit === undefined) throw invalid(`Parameter '${name}' does not accept value '${value}'`);
    if (Math.floor(mask / bit) % 2 === 0) mask += bit;
  }
  return mask;
}
