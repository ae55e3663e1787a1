/** The rules of blkdebug: which requests fail after which events, in which states. Read from a config file or from options. */
import { BlockError } from '../base/errors.js';

/**
 * QAPI's BlkdebugEvent. Our qcow2 never comes to six of them: `write_compressed`, `l2_update_compressed` and
 * `cluster_alloc_bytes` belong to writes of compressed clusters, `reftable_update` and `empty_image_prepare` to emptying an
 * image in place, which it does not do; `refblock_update` QEMU 7.2 does not come to either.
 */
export const BLKDEBUG_EVENTS = [
  'l1_update', 'l1_grow_alloc_table', 'l1_grow_write_table', 'l1_grow_activate_table', 'l2_load', 'l2_update', 'l2_update_compressed',
  'l2_alloc_cow_read', 'l2_alloc_write', 'read_aio', 'read_backing_aio', 'read_compressed', 'write_aio', 'write_compressed', 'vmstate_load',
  'vmstate_save', 'cow_read', 'cow_write', 'reftable_load', 'reftable_grow', 'reftable_update', 'refblock_load', 'refblock_update',
  'refblock_update_part', 'refblock_alloc', 'refblock_alloc_hookup', 'refblock_alloc_write', 'refblock_alloc_write_blocks',
  'refblock_alloc_write_table', 'refblock_alloc_switch_table', 'cluster_alloc', 'cluster_alloc_bytes', 'cluster_free', 'flush_to_os',
  'flush_to_disk', 'pwritev_rmw_head', 'pwritev_rmw_after_head', 'pwritev_rmw_tail', 'pwritev_rmw_after_tail', 'pwritev', 'pwritev_zero',
  'pwritev_done', 'empty_image_prepare', 'l1_shrink_write_table', 'l1_shrink_free_l2_clusters', 'cor_write', 'cluster_alloc_space', 'none',
] as const;

/** QAPI's BlkdebugIOType. */
const BLKDEBUG_IO_TYPES = ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'] as const;
export type BlkdebugIoType = (typeof BLKDEBUG_IO_TYPES)[number];

const SECTOR = 512;
const EIO = 5;

interface InjectRule {
  readonly kind: 'inject-error';
  readonly event: string;
  /** 0 = in every state. */
  readonly state: number;
  /** As a number of Linux; 0 = nothing fails. */
  readonly errno: number;
  /** Only requests that touch this byte; null = all. */
  readonly offset: number | null;
  /** null = everything but block status. */
  readonly ioType: BlkdebugIoType | null;
  readonly once: boolean;
  /** Fail before the request returns to the event loop. */
  readonly immediately: boolean;
}

interface StateRule {
  readonly kind: 'set-state';
  readonly event: string;
  readonly state: number;
  readonly newState: number;
}

/** Stops one request, once: the first after the event. */
interface Breakpoint {
  readonly event: string;
  readonly tag: string;
}

export type BlkdebugRule = InjectRule | StateRule;

/** One rule as it is written: option names with their values, strings or typed. */
type RuleOptions = ReadonlyMap<string, string | number | bigint | boolean | null>;

const OPTIONS: Readonly<Record<BlkdebugRule['kind'], readonly string[]>> = {
  'inject-error': ['event', 'state', 'iotype', 'errno', 'sector', 'once', 'immediately'],
  'set-state': ['event', 'state', 'new_state'],
};

export function knowsOption(kind: BlkdebugRule['kind'], name: string): boolean {
  return OPTIONS[kind].includes(name);
}

function refuse(why: string): never {
  throw new BlockError('INVALID_ARGUMENT', why, { errno: 'EINVAL' });
}

/** Makes a rule of its options. Throws INVALID_ARGUMENT, in QEMU's words. */
export function makeRule(kind: BlkdebugRule['kind'], options: RuleOptions): BlkdebugRule {
  const event = textOf(options, 'event');
  if (event === undefined) refuse('Missing event name for rule');
  if (!(BLKDEBUG_EVENTS as readonly string[]).includes(event)) refuse(`invalid parameter value: ${event}`);
  const state = numberOf(options, 'state') ?? 0;
  if (kind === 'set-state') return { kind, event: event, state, newState: numberOf(options, 'new_state') ?? 0 };
  const ioType = textOf(options, 'iotype');
  if (ioType !== undefined && !(BLKDEBUG_IO_TYPES as readonly string[]).includes(ioType)) refuse(`invalid parameter value: ${ioType}`);
  const sector = numberOf(options, 'sector') ?? -1;
  return {
    kind, event: event, state, errno: numberOf(options, 'errno') ?? EIO, offset: sector === -1 ? null : sector * SECTOR,
    ioType: (ioType ?? null) as BlkdebugIoType | null, once: flagOf(options, 'once'), immediately: flagOf(options, 'immediately'),
  };
}

function textOf(options: RuleOptions, name: string): string | undefined {
  const value = options.get(name);
  return value === undefined ? undefined : String(value);
}

function numberOf(options: RuleOptions, name: string): number | undefined {
  const text = textOf(options, name);
  if (text === undefined) return undefined;
  if (!/^\s*[+-]?(?:0x[\da-f]+|\d+)$/i.test(text)) refuse(`Parameter '${name}' expects a number`);
  return Number(text);
}

function flagOf(options: RuleOptions, name: string): boolean {
  const text = textOf(options, name);
  if (text === undefined || ['off', 'no', 'false', 'n'].includes(text)) return false;
  if (!['on', 'yes', 'true', 'y'].includes(text)) refuse(`Parameter '${name}' expects 'on' or 'off'`);
  return true;
}

/**
 * Reads a config file: `[inject-error]` and `[set-state]` sections of `name = "value"` lines. As QEMU reads them: the
 * spaces around `=` and the quotes are not optional, and a value without quotes is empty.
 */
export function parseBlkdebugConfig(text: string): readonly BlkdebugRule[] {
  const sections: { readonly kind: BlkdebugRule['kind']; readonly id: string | null; readonly options: Map<string, string> }[] = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const header = /^\[\s*([^\s\]"]+)(?:\s+"([^"]+)")?/.exec(line);
    if (header !== null) {
      const kind = kindOf(header[1]!);
      const id = header[2] ?? null;
      if (id !== null && sections.some((other) => other.kind === kind && other.id === id)) refuse(`Duplicate ID '${id}' for ${kind}`);
      sections.push({ kind, id, options: new Map() });
      continue;
    }
    const value = /^\s*(\S+)(?!\S)\s*=\s*"([^"]+)/.exec(line) ?? /^\s*(\S+)/.exec(line);
    if (value === null) refuse('parse error');
    const section = sections.at(-1);
    if (section === undefined) refuse('no group defined');
    const name = value[1]!;
    if (!knowsOption(section.kind, name)) refuse(`Invalid parameter '${name}'`);
    section.options.set(name, value[2] ?? '');
  }
  return ['inject-error', 'set-state'].flatMap((kind) => sections.filter((section) => section.kind === kind))
    .map(({ kind, options }) => makeRule(kind, options));
}

function kindOf(name: string): BlkdebugRule['kind'] {
  if (name !== 'inject-error' && name !== 'set-state') refuse(`There is no option group '${name}'`);
  return name;
}

/** What has happened so far, and what fails because of it. */
export class BlkdebugState {
  /** Newest rule first, as they are processed. */
  #rules: readonly BlkdebugRule[];
  #active: readonly InjectRule[] = [];
  #state = 1;
  #breakpoints: Breakpoint[] = [];
  #reached: string[] = [];

  constructor(rules: readonly BlkdebugRule[]) {
    this.#rules = rules.toReversed();
  }

  get state(): number { return this.#state; }

  /** Error rules of the event take the place of those that were active; the state changes once all rules have been seen. */
  happened(event: string): void {
    if (this.#breakpoints.length > 0) this.#reach(event);
    let next = this.#state;
    const injects: InjectRule[] = [];
    for (const rule of this.#rules) {
      if (rule.event !== event || (rule.state !== 0 && rule.state !== this.#state)) continue;
      if (rule.kind === 'set-state') next = rule.newState;
      else injects.unshift(rule);
    }
    if (injects.length > 0) this.#active = injects;
    this.#state = next;
  }

  addBreakpoint(breakpoint: Breakpoint): void {
    this.#breakpoints.push(breakpoint);
  }

  /** False where there is none of this tag. */
  removeBreakpoints(tag: string): boolean {
    const kept = this.#breakpoints.filter((breakpoint) => breakpoint.tag !== tag);
    const removed = kept.length < this.#breakpoints.length;
    this.#breakpoints = kept;
    return removed;
  }

  /** Tags of the breakpoints that were reached since this was last asked: the next request stops at them. */
  takeReached(): readonly string[] {
    if (this.#reached.length === 0) return this.#reached;
    const reached = this.#reached;
    this.#reached = [];
    return reached;
  }

  /** The rule by which a request fails, if any; one that holds once is gone then. */
  failing(ioType: BlkdebugIoType, offset: number, bytes: number): InjectRule | null {
    const rule = this.#active.find((candidate) => {
      const hits = candidate.offset === null || (bytes > 0 && candidate.offset >= offset && candidate.offset < offset + bytes);
      return hits && (candidate.ioType === null ? ioType !== 'block-status' : candidate.ioType === ioType);
    });
    if (rule === undefined || rule.errno === 0) return null;
    if (rule.once) {
      this.#active = this.#active.filter((other) => other !== rule);
      this.#rules = this.#rules.filter((other) => other !== rule);
    }
    return rule;
  }
  #reach(event: string): void {
    const hit = this.#breakpoints.filter((breakpoint) => breakpoint.event === event);
    if (hit.length === 0) return;
    this.#reached.push(...hit.map(({ tag }) => tag));
    this.#breakpoints = this.#breakpoints.filter((breakpoint) => !hit.includes(breakpoint));
  }
}
