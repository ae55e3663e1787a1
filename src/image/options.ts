/**
 * The options of one node, flat as QEMU flattens them (`cache.direct`, `children.0.driver`). Values are typed where
 * they come from JSON and strings where they come from a command line; both mean the same. What nobody took is refused.
 */
import { BlockError } from '../base/errors.js';

type Scalar = string | number | bigint | boolean | null;
export type OptionTree = { readonly [key: string]: Scalar | OptionTree | readonly (Scalar | OptionTree)[] | undefined };
export type FlatOptions = Map<string, Scalar>;

export function flattenOptions(tree: OptionTree): FlatOptions {
  const flat: FlatOptions = new Map();
  flattenInto(flat, '', tree);
  return flat;
}

function flattenInto(flat: FlatOptions, prefix: string, tree: OptionTree | readonly (Scalar | OptionTree)[]): void {
  for (const [key, value] of Object.entries(tree as OptionTree)) {
    if (value === undefined) continue;
    if (typeof value === 'object' && value !== null) flattenInto(flat, `${prefix}${key}.`, value);
    else flat.set(prefix + key, value);
  }
}

/** Takes what begins with `prefix.` out of `flat`, and returns it without the prefix. */
export function extractOptions(flat: FlatOptions, prefix: string): FlatOptions {
  const taken: FlatOptions = new Map();
  for (const [key, value] of flat) {
    if (!key.startsWith(`${prefix}.`)) continue;
    taken.set(key.slice(prefix.length + 1), value);
    flat.delete(key);
  }
  return taken;
}

/** The tree that `flat` stands for; keys of digits make lists. */
export function treeOf(flat: ReadonlyMap<string, Scalar>): OptionTree {
  const root: Record<string, unknown> = {};
  for (const [name, value] of flat) {
    const path = name.split('.');
    let place = root;
    for (const [index, part] of path.slice(0, -1).entries()) {
      const next = (Object.hasOwn(place, part) ? place[part] : undefined) ?? (/^\d+$/.test(path[index + 1]!) ? [] : {});
      place[part] = next;
      place = next as Record<string, unknown>;
    }
    place[path.at(-1)!] = value;
  }
  return root as OptionTree;
}

const ON: readonly string[] = ['on', 'yes', 'true', 'y'];
const OFF: readonly string[] = ['off', 'no', 'false', 'n'];
const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50, e: 2 ** 60 };

export class NodeOptionsReader {
  readonly #flat: FlatOptions;

  constructor(flat: FlatOptions) {
    this.#flat = flat;
  }

  get flat(): FlatOptions { return this.#flat; }
  has(name: string): boolean { return this.#flat.has(name); }
  /** Takes one value, whatever it is. */
  take(name: string): Scalar | undefined {
    const value = this.#flat.get(name);
    this.#flat.delete(name);
    return value;
  }

  string(name: string): string | undefined {
    const value = this.take(name);
    return value === undefined ? undefined : String(value);
  }

  bool(name: string): boolean | undefined;
  bool(name: string, otherwise: boolean): boolean;
  bool(name: string, otherwise?: boolean): boolean | undefined {
    const value = this.take(name);
    if (value === undefined) return otherwise;
    if (typeof value === 'boolean') return value;
    if (ON.includes(String(value))) return true;
    if (OFF.includes(String(value))) return false;
    throw invalid(`Parameter '${name}' expects 'on' or 'off'`);
  }

  /** Bytes; strings may have a suffix (64k). */
  size(name: string): number | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    const match = /^(\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(String(value));
    const bytes = match === null ? -1 : Math.floor(Number(match[1]) * SIZE_UNITS[match[2]!.toLowerCase()]!);
    if (bytes < 0) throw invalid(`Parameter '${name}' expects a non-negative number below 2^64`);
    return bytes;
  }

  number(name: string): number | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    const text = String(value);
    if (!/^-?(?:\d+|0x[\da-f]+)$/i.test(text)) throw invalid(`Parameter '${name}' expects a number`);
    return Number(text);
  }

  oneOf<T extends string>(name: string, choices: readonly T[]): T | undefined;
  oneOf<T extends string>(name: string, choices: readonly T[], otherwise: T): T;
  oneOf<T extends string>(name: string, choices: readonly T[], otherwise?: T): T | undefined {
    const value = this.string(name);
    if (value === undefined) return otherwise;
    if (!(choices as readonly string[]).includes(value)) throw invalid(`Parameter '${name}' does not accept value '${value}'`);
    return value as T;
  }

  /** Refuses what is left over, as QEMU's bdrv_open does. */
  finish(driver: string, protocol: boolean): void {
    for (const name of this.#flat.keys()) {
      throw invalid(protocol
        ? `Block protocol '${driver}' doesn't support the option '${name}'`
        : `Block format '${driver}' does not support the option '${name}'`);
    }
  }
}

export function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
