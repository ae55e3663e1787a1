/** The one table of commands, events and types: those of qemu-storage-daemon 7.2, and ours behind them. */
import { parseNotation, type Definitions, type Entity, type Member, type NamedType } from './notation.js';
import { BLOCK } from './schema/block.js';
import { BLOCKDEV } from './schema/blockdev.js';
import { CREATE } from './schema/blockdev-create.js';
import { CHAR } from './schema/char.js';
import { COMMAND_LINE } from './schema/command-line.js';
import { COMMON } from './schema/common.js';
import { CONTROL } from './schema/control.js';
import { CRYPTO } from './schema/crypto.js';
import { EXPORT } from './schema/export.js';
import { EXTENSIONS } from './schema/extensions.js';
import { IMAGE } from './schema/image.js';
import { JOB } from './schema/job.js';
import { MACHINE } from './schema/machine.js';
import { QOM } from './schema/qom.js';
import { SOCKETS } from './schema/sockets.js';
import { TRANSACTION } from './schema/transaction.js';

/** All that is ours and not QEMU's is called so. */
export const EXTENSION_PREFIX = 'x-quiesce-';

/** The order of commands and events is QEMU's: that of the modules of its schema. */
const PEER = [BLOCK, JOB, EXPORT, CHAR, CONTROL, QOM, TRANSACTION, SOCKETS, CRYPTO, COMMON, CREATE, BLOCKDEV, IMAGE];

export class Schema {
  readonly peer: readonly Entity[];
  readonly extensions: readonly Entity[];
  readonly #types = new Map<string, NamedType>();
  readonly #entities = new Map<string, Entity>();
  readonly #members = new Map<string, readonly Member[]>();
  readonly #additions: ReadonlyMap<string, readonly Member[]>;

  /** `unlisted`: can be called, and no list tells of it. */
  constructor(peer: Definitions, extensions: Definitions, unlisted: Definitions = { types: [], entities: [], additions: new Map() }) {
    this.peer = peer.entities;
    this.extensions = extensions.entities;
    this.#additions = new Map([...peer.additions, ...extensions.additions]);
    for (const type of [...peer.types, ...extensions.types, ...unlisted.types]) this.#types.set(type.name, type);
    for (const entity of [...peer.entities, ...extensions.entities, ...unlisted.entities]) this.#entities.set(entity.name, entity);
  }

  /** Undefined for built-in types. */
  type(name: string): NamedType | undefined {
    return this.#types.get(name);
  }

  /** All members of a struct or union, those of its bases first. */
  members(name: string): readonly Member[] {
    const known = this.#members.get(name);
    if (known !== undefined) return known;
    const type = this.#types.get(name);
    if (type?.kind !== 'object') throw new Error(`'${name}' is no object type`);
    const members = type.base === null ? type.members : [...this.members(type.base), ...type.members];
    this.#members.set(name, members);
    return members;
  }

  /** Members of ours that a type of QEMU's takes as well. */
  additions(name: string): readonly Member[] {
    return this.#additions.get(name) ?? [];
  }

  command(name: string): Entity | undefined {
    const entity = this.#entities.get(name);
    return entity?.kind === 'command' ? entity : undefined;
  }

  event(name: string): Entity | undefined {
    const entity = this.#entities.get(name);
    return entity?.kind === 'event' ? entity : undefined;
  }
}

let known: Schema | undefined;

/** Read on first use. */
export function schema(): Schema {
  known ??= new Schema(join(PEER), join([EXTENSIONS, COMMAND_LINE]), join([MACHINE]));
  return known;
}

function join(texts: readonly string[]): Definitions {
  const parts = texts.map(parseNotation);
  return {
    types: parts.flatMap((part) => part.types), entities: parts.flatMap((part) => part.entities),
    additions: new Map(parts.flatMap((part) => Array.from(part.additions))),
  };
}
