/**
 * The notation in which `schema/*.ts` tell QAPI:
 *
 *     command block_resize { device?: str, node-name?: str, size: int }     `?` is optional
 *     command query-block -> [BlockInfo]                                    what it returns; a list
 *     command blockdev-add: BlockdevOptions !unstable                       arguments of a named type; `!` names a feature
 *     event JOB_STATUS_CHANGE { id: str, status: JobStatus }
 *     enum OnOffAuto { auto, on, off }
 *     struct Derived: Base { more: uint32 }                                 the members of Base come first
 *     union U by type { type: Kind } of { inet: Inet, -absent: Other }      `-` is compiled out in the peer: a name without effect
 *     extend Name { x-quiesce-more?: str }                                  members of ours that the schema does not tell of
 *     alternate BlockdevRef { definition: BlockdevOptions, reference: str }
 *
 * Built-in types: str, bool, number, null, value (any JSON), int and int64, int32, uint16, uint32, uint64, size.
 */
export interface Member {
  readonly name: string;
  /** The name of a type, `[Name]` for a list. */
  readonly type: string;
  readonly optional: boolean;
  readonly features: readonly string[];
}

interface Variant {
  readonly value: string;
  readonly type: string;
  /** Takes part in the numbering of types, and in nothing else. */
  readonly hidden: boolean;
}

export interface EnumType { readonly kind: 'enum'; readonly name: string; readonly values: readonly Member[]; readonly features: readonly string[] }

export interface ObjectType {
  readonly kind: 'object';
  readonly name: string;
  readonly base: string | null;
  /** Its own, after those of the base. */
  readonly members: readonly Member[];
  /** The member whose value chooses the variant. */
  readonly tag: string | null;
  readonly variants: readonly Variant[];
  readonly features: readonly string[];
}

export interface AlternateType { readonly kind: 'alternate'; readonly name: string; readonly members: readonly Member[]; readonly features: readonly string[] }

export type NamedType = EnumType | ObjectType | AlternateType;

/** A command or an event. */
export interface Entity {
  readonly kind: 'command' | 'event';
  readonly name: string;
  /** Null: no arguments. */
  readonly argument: string | null;
  readonly returns: string | null;
  readonly features: readonly string[];
}

export interface Definitions {
  readonly types: NamedType[];
  readonly entities: Entity[];
  /** By the name of a type: members that are accepted and not told of. */
  readonly additions: ReadonlyMap<string, readonly Member[]>;
}

const TOKEN = /\s*(->|[{}[\]:,?!]|[A-Za-z0-9_.+-]+|$)/y;

/** What a text in the notation defines; throws on what it does not understand, which is a fault of this program. */
export function parseNotation(text: string): Definitions {
  return new NotationParser(text).parse();
}

class NotationParser {
  readonly #text: string;
  #at = 0;
  #next = '';
  readonly #types: NamedType[] = [];
  readonly #entities: Entity[] = [];
  readonly #additions = new Map<string, readonly Member[]>();

  constructor(text: string) {
    this.#text = text;
    this.#advance();
  }

  parse(): Definitions {
    while (this.#next !== '') this.#definition(this.#take());
    return { types: this.#types, entities: this.#entities, additions: this.#additions };
  }

  #definition(kind: string): void {
    const name = this.#take();
    switch (kind) {
      case 'command':
      case 'event': this.#entities.push(this.#entity(kind, name)); return;
      case 'extend': this.#additions.set(name, this.#members()); return;
      case 'enum': this.#types.push({ kind, name, values: this.#members(), features: this.#features() }); return;
      case 'alternate': this.#types.push({ kind, name, members: this.#members(), features: this.#features() }); return;
      case 'struct':
      case 'union': this.#types.push(this.#object(name)); return;
      default: throw new Error(`'${kind}' begins no definition`);
    }
  }

  #entity(kind: 'command' | 'event', name: string): Entity {
    let argument: string | null = null;
    if (this.#accept(':')) {
      argument = this.#take();
    } else if (this.#next === '{') {
      argument = `q_obj_${name}-arg`;
      this.#types.push({ kind: 'object', name: argument, base: null, members: this.#members(), tag: null, variants: [], features: [] });
    }
    const returns = this.#accept('->') ? this.#type() : null;
    return { kind, name, argument, returns, features: this.#features() };
  }

  #object(name: string): ObjectType {
    const base = this.#accept(':') ? this.#take() : null;
    const tag = this.#accept('by') ? this.#take() : null;
    const members = this.#members();
    const variants = this.#accept('of') ? this.#members().map((member) => ({
      value: member.name.replace(/^-/, ''), type: member.type, hidden: member.name.startsWith('-'),
    })) : [];
    return { kind: 'object', name, base, members, tag, variants, features: this.#features() };
  }

  #members(): Member[] {
    const members: Member[] = [];
    this.#expect('{');
    while (!this.#accept('}')) {
      const name = this.#take();
      const optional = this.#accept('?');
      const type = this.#accept(':') ? this.#type() : '';
      members.push({ name, type, optional, features: this.#features() });
      if (this.#next !== '}') this.#expect(',');
    }
    return members;
  }

  #type(): string {
    if (!this.#accept('[')) return this.#take();
    const name = this.#take();
    this.#expect(']');
    return `[${name}]`;
  }

  #features(): string[] {
    const features: string[] = [];
    while (this.#accept('!')) features.push(this.#take());
    return features;
  }

  #accept(token: string): boolean {
    if (this.#next !== token) return false;
    this.#advance();
    return true;
  }

  #expect(token: string): void {
    if (!this.#accept(token)) throw new Error(`expected '${token}' before '${this.#next}' at ${this.#at}`);
  }

  #take(): string {
    const token = this.#next;
    if (!/^[\w.+-]+$/.test(token)) throw new Error(`expected a name before '${token}' at ${this.#at}`);
    this.#advance();
    return token;
  }

  #advance(): void {
    TOKEN.lastIndex = this.#at;
    const match = TOKEN.exec(this.#text);
    if (match === null) throw new Error(`unexpected '${this.#text.slice(this.#at, this.#at + 20)}'`);
    this.#at = TOKEN.lastIndex;
    this.#next = match[1]!;
  }
}
