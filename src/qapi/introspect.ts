/**
 * The answer to `query-qmp-schema`. Type names are masked by numbers, given in the order of first use; types follow the commands and
 * events in that order too. Our extensions come after all that is QEMU's, with the numbers that follow.
 */
import type { Json, JsonDict } from '../qobject/value.js';
import type { Entity, Member, ObjectType } from './notation.js';
import type { Schema } from './schema.js';

/** Built-in types by their name in the answer, with the JSON type. */
const BUILT_IN: Readonly<Record<string, string>> = { str: 'string', int: 'int', number: 'number', bool: 'boolean', null: 'null', value: 'value' };
const INTEGERS = new Set(['int', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'size']);
/** What a command without arguments takes, and one without a result returns. */
const EMPTY = 'q_empty';

export function introspect(schema: Schema): JsonDict[] {
  return new Introspection(schema).all();
}

class Introspection {
  readonly #schema: Schema;
  readonly #numbers = new Map<string, string>();
  /** Types in the order of first use; grows while it is walked. */
  readonly #used = new Set<string>();
  readonly #hidden = new Set<string>();
  readonly #infos: JsonDict[] = [];

  constructor(schema: Schema) {
    this.#schema = schema;
  }

  all(): JsonDict[] {
    const described = new Set<string>();
    for (const entities of [this.#schema.peer, this.#schema.extensions]) {
      for (const entity of entities) this.#entity(entity);
      for (const type of this.#used) {
        if (!described.has(type)) this.#type(type);
        described.add(type);
      }
    }
    return this.#infos;
  }

  #entity({ kind, name, argument, returns, features }: Entity): void {
    const argType = this.#use(argument ?? EMPTY);
    this.#infos.push({
      name, 'meta-type': kind, 'arg-type': argType, ...kind === 'command' ? { 'ret-type': this.#use(returns ?? EMPTY) } : {}, ...told(features),
    });
  }

  /** How the answer calls a type. */
  #use(type: string): string {
    if (type.startsWith('[')) {
      const element = INTEGERS.has(type.slice(1, -1)) ? 'int' : type.slice(1, -1);
      this.#used.add(`[${element}]`);
      return `[${this.#use(element)}]`;
    }
    const plain = INTEGERS.has(type) ? 'int' : type;
    this.#used.add(plain);
    if (BUILT_IN[plain] !== undefined) return plain === 'value' ? 'any' : plain;
    const number = this.#numbers.get(plain) ?? String(this.#numbers.size);
    this.#numbers.set(plain, number);
    return number;
  }

  #type(name: string): void {
    const called = this.#use(name);
    const builtIn = BUILT_IN[name];
    const type = this.#schema.type(name);
    if (name.startsWith('[')) this.#infos.push({ name: called, 'meta-type': 'array', 'element-type': this.#use(name.slice(1, -1)) });
    else if (builtIn !== undefined) this.#infos.push({ name: called, 'meta-type': 'builtin', 'json-type': builtIn });
    else if (type?.kind === 'enum') {
      const members = type.values.map((value) => ({ name: value.name, ...told(value.features) }));
      this.#infos.push({ name: called, 'meta-type': 'enum', members, values: type.values.map((value) => value.name), ...told(type.features) });
    } else if (type?.kind === 'alternate') {
      this.#infos.push({ name: called, 'meta-type': 'alternate', members: type.members.map((member) => ({ type: this.#use(member.type) })), ...told(type.features) });
    } else if (type?.kind === 'object') {
      const info = this.#object(called, type);
      if (!this.#hidden.has(name)) this.#infos.push(info);
    } else {
      throw new Error(`the schema does not define '${name}'`);
    }
  }

  #object(called: string, type: ObjectType): JsonDict {
    const members = this.#schema.members(type.name).map((member) => this.#member(member));
    const info = { name: called, 'meta-type': 'object', members, ...told(type.features) };
    if (type.tag === null) return info;
    const variants: Json[] = [];
    for (const { value, type: variant, hidden } of type.variants) {
      const number = this.#use(variant);
      if (hidden) this.#hidden.add(variant);
      else variants.push({ case: value, type: number });
    }
    const listed = new Set(type.variants.map(({ value }) => value));
    for (const value of enumValues(this.#schema, type)) if (!listed.has(value)) variants.push({ case: value, type: this.#use(EMPTY) });
    return { ...info, tag: type.tag, variants };
  }

  #member({ name, type, optional, features }: Member): JsonDict {
    return { name, type: this.#use(type), ...optional ? { default: null } : {}, ...told(features) };
  }
}

/** The values that the tag of a union can have. */
function enumValues(schema: Schema, union: ObjectType): readonly string[] {
  const tag = schema.members(union.name).find((member) => member.name === union.tag);
  const type = schema.type(tag?.type ?? '');
  return type?.kind === 'enum' ? type.values.map((value) => value.name) : [];
}

function told(features: readonly string[]): JsonDict {
  return features.length === 0 ? {} : { features: [...features] };
}
