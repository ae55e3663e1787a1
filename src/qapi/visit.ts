/**
 * Takes a value apart by its type in the schema: what comes out has the members of the type and no others, in its order, with
 * numbers in their bounds. Errors are QEMU's sentences, and the first one that QEMU would find.
 */
import { BlockError } from '../base/errors.js';
import { orderedKeys } from '../qobject/dict-order.js';
import { GlibKeys } from '../qobject/glib-order.js';
import { getKey, integerOf, isDict, isInteger, isList, JsonDouble, newDict, type Json, type JsonDict } from '../qobject/value.js';
import { parseBool, parseCInteger, parseSizeText } from './keyval-scalars.js';
import type { AlternateType, EnumType, ObjectType } from './notation.js';
import type { Schema } from './schema.js';

/** `keyval`: scalars are strings, as `--blockdev key=value` gives them. */
export type VisitMode = 'json' | 'keyval';

const UNSIGNED: Readonly<Record<string, bigint>> = { uint8: 2n ** 8n, uint16: 2n ** 16n, uint32: 2n ** 32n, uint64: 2n ** 64n, size: 2n ** 64n };
const SIGNED: Readonly<Record<string, bigint>> = { int8: 2n ** 7n, int16: 2n ** 15n, int32: 2n ** 31n, int64: 2n ** 63n, int: 2n ** 63n };

interface Container {
  /** What it is called in what holds it, null in a list and at the root. */
  readonly name: string | null;
  readonly dict: JsonDict | null;
  readonly unvisited: GlibKeys | null;
  index: number;
}

/** Throws a BlockError INVALID_ARGUMENT whose message is QEMU's. */
export function visit(schema: Schema, type: string, value: Json, mode: VisitMode): Json {
  return new Visitor(schema, mode).visit(type, null, value);
}

/** As `visit` in JSON, of a value that errors call by a name. */
export function visitNamed(schema: Schema, type: string, name: string, value: Json): Json {
  return new Visitor(schema, 'json').visit(type, name, value);
}

class Visitor {
  readonly #schema: Schema;
  readonly #keyval: boolean;
  readonly #stack: Container[] = [];

  constructor(schema: Schema, mode: VisitMode) {
    this.#schema = schema;
    this.#keyval = mode === 'keyval';
  }

  /** `value` is what was found under `name`; undefined: nothing. */
  visit(type: string, name: string | null, value: Json | undefined): Json {
    if (value === undefined) throw invalid(`Parameter '${this.#path(name)}' is missing`);
    if (type.startsWith('[')) return this.#list(type.slice(1, -1), name, value);
    const named = this.#schema.type(type);
    if (named?.kind === 'object') return this.#object(named, name, value);
    if (named?.kind === 'alternate') return this.#alternate(named, name, value);
    if (named?.kind === 'enum') return this.#enum(named, name, value);
    return this.#scalar(type, name, value);
  }

  #scalar(type: string, name: string | null, value: Json): Json {
    if (UNSIGNED[type] !== undefined) return this.#unsigned(type, name, value);
    if (SIGNED[type] !== undefined) return this.#signed(type, name, value);
    switch (type) {
      case 'str': return this.#string(name, value);
      case 'bool': return this.#bool(name, value);
      case 'number': return this.#number(name, value);
      case 'null':
        if (value !== null) throw this.#mistyped(name, 'null');
        return null;
      case 'value': return value;
      default: throw new Error(`the schema does not define '${type}'`);
    }
  }

  #object(type: ObjectType, name: string | null, value: Json): Json {
    if (!isDict(value)) throw this.#mistyped(name, 'object');
    this.#stack.push({ name, dict: value, unvisited: new GlibKeys(orderedKeys(value)), index: 0 });
    const result = newDict();
    this.#members(type, result);
    const [unexpected] = this.#stack.at(-1)!.unvisited!;
    if (unexpected !== undefined) throw invalid(`Parameter '${this.#path(unexpected)}' is unexpected`);
    this.#stack.pop();
    return result;
  }

  #members(type: ObjectType, result: Record<string, Json>): void {
    const { dict, unvisited } = this.#stack.at(-1)!;
    for (const member of [...this.#schema.members(type.name), ...this.#schema.additions(type.name)]) {
      const value = getKey(dict!, member.name);
      if (value === undefined && member.optional) continue;
      unvisited!.delete(member.name);
      result[member.name] = this.visit(member.type, member.name, value);
    }
    if (type.tag === null) return;
    const variant = type.variants.find(({ value, hidden }) => !hidden && value === result[type.tag!]);
    const named = variant === undefined ? undefined : this.#schema.type(variant.type);
    if (named?.kind === 'object') this.#members(named, result);
  }

  #list(element: string, name: string | null, value: Json): Json {
    if (!isList(value)) throw this.#mistyped(name, 'array');
    const container = { name, dict: null, unvisited: null, index: -1 };
    this.#stack.push(container);
    const items = value.map((item) => {
      container.index++;
      return this.visit(element, null, item);
    });
    this.#stack.pop();
    return items;
  }

  #alternate(type: AlternateType, name: string | null, value: Json): Json {
    const member = type.members.find((candidate) => this.#fits(candidate.type, value));
    if (member === undefined) throw invalid(`Invalid parameter type for '${name ?? 'null'}', expected: ${type.name}`);
    return this.visit(member.type, name, value);
  }

  /** By the type of the JSON value alone. */
  #fits(type: string, value: Json): boolean {
    const kind = this.#schema.type(type)?.kind;
    if (kind === 'object') return isDict(value);
    if (kind === 'enum' || type === 'str') return typeof value === 'string';
    return type === 'null' && value === null;
  }

  #enum(type: EnumType, name: string | null, value: Json): Json {
    const text = this.#string(name, value);
    if (type.values.some((candidate) => candidate.name === text)) return text;
    throw invalid(`Parameter '${name ?? 'null'}' does not accept value '${text}'`);
  }

  #string(name: string | null, value: Json): string {
    if (this.#keyval) return this.#text(name, value);
    if (typeof value !== 'string') throw this.#mistyped(name, 'string');
    return value;
  }

  #bool(name: string | null, value: Json): boolean {
    if (this.#keyval) {
      const truth = parseBool(this.#text(name, value));
      if (truth === undefined) throw this.#expects(name, "'on' or 'off'");
      return truth;
    }
    if (typeof value !== 'boolean') throw this.#mistyped(name, 'boolean');
    return value;
  }

  #number(name: string | null, value: Json): number {
    const found = this.#keyval ? Number(this.#text(name, value).trim() || 'none') : value;
    if (found instanceof JsonDouble) return found.value;
    if (typeof found === 'bigint') return Number(found);
    if (typeof found !== 'number' || (this.#keyval && !Number.isFinite(found))) throw this.#mistyped(name, 'number');
    return found;
  }

  #signed(type: string, name: string | null, value: Json): number | bigint {
    const integer = this.#integer(name, value);
    const inRange = (bound: bigint): boolean => integer !== undefined && integer >= -bound && integer < bound;
    if (integer === undefined || !inRange(2n ** 63n)) throw this.#keyval ? this.#expects(name, 'integer') : this.#mistyped(name, 'integer');
    if (!inRange(SIGNED[type]!)) throw tooBig(name, type);
    return integerOf(integer);
  }

  #unsigned(type: string, name: string | null, value: Json): number | bigint {
    const isSize = this.#keyval && type === 'size';
    const integer = isSize ? parseSizeText(this.#text(name, value)) : this.#integer(name, value);
    if (integer === undefined || integer < -(2n ** 63n) || integer >= 2n ** 64n) {
      throw this.#expects(name, isSize ? 'size' : (this.#keyval ? 'integer' : 'uint64'));
    }
    // a negative number is taken as C converts it
    const wrapped = BigInt.asUintN(64, integer);
    if (wrapped >= UNSIGNED[type]!) throw tooBig(name, type);
    return integerOf(wrapped);
  }

  #integer(name: string | null, value: Json): bigint | undefined {
    if (this.#keyval) return parseCInteger(this.#text(name, value));
    return isInteger(value) ? BigInt(value) : undefined;
  }

  /** A scalar of keyval. */
  #text(name: string | null, value: Json): string {
    if (typeof value === 'string') return value;
    if (isDict(value) || isList(value)) throw invalid(`Parameters '${this.#path(name)}.*' are unexpected`);
    throw invalid(`Internal error: parameter ${this.#path(name)} invalid`);
  }

  #mistyped(name: string | null, expected: string): BlockError {
    return invalid(`Invalid parameter type for '${this.#path(name)}', expected: ${expected}`);
  }

  #expects(name: string | null, what: string): BlockError {
    return invalid(`Parameter '${this.#path(name)}' expects ${what}`);
  }

  /** `children[0].file.name`, or `children.0.file.name` in keyval. */
  #path(name: string | null): string {
    let path = '';
    let last = name;
    for (const container of this.#stack.toReversed()) {
      if (container.dict !== null) path = `.${last ?? '<anonymous>'}${path}`;
      else path = `${this.#keyval ? `.${container.index}` : `[${container.index}]`}${path}`;
      last = container.name;
    }
    if (last !== null) return last + path;
    return path === '' ? '<anonymous>' : path.replace(/^\./, '');
  }
}

function tooBig(name: string | null, type: string): BlockError {
  return invalid(`Parameter '${name ?? 'null'}' expects ${type}_t`);
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
