/** The tree of objects: those that clients make under `/objects`, and those that the daemon shows, such as `/chardevs`. */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import type { ThrottleGroup } from '../block/throttle.js';
import type { TlsCredentials } from '../nbd/tls.js';
import { visitNamed } from '../qapi/visit.js';
import { schema } from '../qapi/schema.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import { orderedKeys } from '../qobject/dict-order.js';
import { GlibKeys } from '../qobject/glib-order.js';
import type { Json, JsonDict } from '../qobject/value.js';
import { allows, makeKind, secretBytes, throttleGroupOf, tlsCredentialsOf, type Kind } from './kinds.js';
import { allTypes, findProperty, findType, isA, listProperties } from './types.js';

/** Types of properties as told to clients, by the types of the schema where they differ. */
const SCHEMA_TYPES: Readonly<Record<string, string>> = { string: 'str', int32_t: 'int32', QAuthZListRule: '[QAuthZListRule]' };
const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

interface Entry {
  readonly type: string;
  /** Null for containers. */
  readonly kind: Kind | null;
  readonly children: Map<string, Entry>;
  /** The order in which children are listed depends on those that were here before. */
  readonly order: GlibKeys;
}

/** What an object that the daemon shows answers for its properties. */
export type ShownProperties = Readonly<Record<string, () => Json>>;

export class ObjectModel {
  readonly #root = container();
  readonly #clock: Clock;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** `options`: an ObjectOptions of the schema, checked. Throws in QEMU's words, and has made nothing then. */
  add(options: JsonDict): void {
    const { 'qom-type': type, id, ...properties } = options as { readonly 'qom-type': string; readonly id: string } & Readonly<Record<string, Json>>;
    if (!ID.test(id)) throw invalid("Parameter 'id' expects an identifier");
    if (findType(type) === undefined) throw invalid(`invalid object type: ${type}`);
    const kind = makeKind(type, { clock: this.#clock, secret: (key) => this.secret(key), has: (wanted) => this.#ids(wanted).length > 0 });
    const object = entryOf(type, kind);
    for (const name of orderedKeys(properties)) this.#set(object, name, properties[name]!);
    const objects = this.#container('objects');
    if (objects.children.has(id) || id === 'type') throw invalid(`attempt to add duplicate property '${id}' to object (type 'container')`);
    objects.order.add(id);
    try {
      kind.complete(id);
    } catch (error) {
      objects.order.delete(id);
      throw error;
    }
    objects.children.set(id, object);
  }

  delete(id: string): void {
    const objects = this.#container('objects');
    const object = objects.children.get(id);
    if (object === undefined) throw invalid(`object '${id}' not found`);
    if (object.kind!.inUse) throw invalid(`object '${id}' is in use, can not be deleted`);
    remove(objects, id);
  }

  /** Is there an object of this type and id? */
  has(id: string, type: string): boolean {
    const object = this.#object(id);
    return object !== undefined && isA(object.type, type);
  }

  /** The type of the object of this id. */
  typeOf(id: string): string | undefined {
    return this.#object(id)?.type;
  }

  secret(id: string): Uint8Array | undefined {
    return this.#of(id, secretBytes);
  }

  throttleGroup(id: string): ThrottleGroup | undefined {
    return this.#of(id, throttleGroupOf);
  }

  tlsCredentials(id: string): TlsCredentials | undefined {
    return this.#of(id, tlsCredentialsOf);
  }

  /** Does the `authz-*` object let this identity in? Undefined: there is no such object. */
  authorizes(id: string, identity: string): boolean | undefined {
    return this.#of(id, (kind) => allows(kind, identity));
  }

  /** Shows an object of the daemon, such as `chardevs` `monitor`, to `qom-list` and `qom-get`. */
  show(parent: string, id: string, type: string, properties: ShownProperties = {}): void {
    const kind: Kind = { get: (name) => properties[name]?.() ?? '', set: () => undefined, complete: () => undefined, inUse: true };
    put(this.#container(parent), id, entryOf(type, kind));
  }

  hide(parent: string, id: string): void {
    remove(this.#container(parent), id);
  }

  commands(): CommandTable {
    const text = (value: Json | undefined): string => value as string;
    return {
      'object-add': (options) => this.add(options),
      'object-del': ({ id }) => this.delete(text(id)),
      'qom-list': ({ path }) => this.#list(text(path)),
      'qom-get': ({ path, property }) => this.#get(this.#find(text(path)), text(property)),
      'qom-set': ({ path, property, value }) => this.#set(this.#find(text(path)), text(property), value!),
      'qom-list-types': ({ implements: wanted, abstract }) => listTypes(wanted as string | undefined, abstract === true),
      'qom-list-properties': ({ typename }) => typeProperties(text(typename)),
    };
  }

  #object(id: string): Entry | undefined {
    return this.#root.children.get('objects')?.children.get(id);
  }

  #of<T>(id: string, take: (kind: Kind) => T | undefined): T | undefined {
    const kind = this.#object(id)?.kind;
    return kind === undefined || kind === null ? undefined : take(kind);
  }

  #ids(type: string): string[] {
    return [...this.#container('objects').children].filter(([, object]) => object.type === type).map(([id]) => id);
  }

  #container(name: string): Entry {
    const found = this.#root.children.get(name);
    return found ?? put(this.#root, name, container());
  }

  #list(path: string): Json {
    const found = this.#resolve(path);
    if (found.length > 1) throw invalid(`Path '${path}' is ambiguous`);
    if (found[0] === undefined) throw notFound(path);
    const { type, children, order } = found[0];
    const own = listProperties(type).map((property) => ({ name: property.name, type: property.type }));
    const below = [...order].reverse().map((name) => ({ name, type: `child<${children.get(name)!.type}>` }));
    // the property of all objects first, then what this one has, then what its type has
    return [...own.slice(0, 1), ...below, ...own.slice(1)];
  }

  #get({ type, kind, children }: Entry, property: string): Json {
    if (property === 'type') return type;
    if (children.has(property)) return this.#pathOf(children.get(property)!);
    if (findProperty(type, property) === undefined) throw invalid(`Property '${type}.${property}' not found`);
    return kind!.get(property);
  }

  #set({ type, kind, children }: Entry, property: string, value: Json): void {
    const info = findProperty(type, property);
    if (info === undefined && !children.has(property)) throw invalid(`Property '${type}.${property}' not found`);
    if (info?.writable !== true) throw invalid(`Property '${type}.${property}' is not writable`);
    const list = type === 'thread-context' && property.endsWith('affinity');
    kind!.set(property, visitNamed(schema(), list ? '[uint16]' : SCHEMA_TYPES[info.type] ?? info.type, property, value));
  }

  #find(path: string): Entry {
    const found = this.#resolve(path);
    if (found.length !== 1) throw notFound(path);
    return found[0]!;
  }

  /** An absolute path names one object at most; any other one is looked for below every object. */
  #resolve(path: string): Entry[] {
    const parts = path.split('/').filter((part) => part !== '');
    const starts = path.startsWith('/') ? [this.#root] : everyEntry(this.#root);
    return starts.map((start) => parts.reduce<Entry | undefined>((at, part) => at?.children.get(part), start)).filter((found) => found !== undefined);
  }

  #pathOf(wanted: Entry): string {
    const search = (entry: Entry, path: string): string | undefined => {
      if (entry === wanted) return path;
      for (const [name, child] of entry.children) {
        const found = search(child, `${path}/${name}`);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    return search(this.#root, '') ?? '';
  }
}

function entryOf(type: string, kind: Kind | null): Entry {
  return { type, kind, children: new Map(), order: new GlibKeys() };
}

function container(): Entry {
  return entryOf('container', null);
}

function put(parent: Entry, id: string, child: Entry): Entry {
  parent.children.set(id, child);
  parent.order.add(id);
  return child;
}

function remove(parent: Entry, id: string): void {
  parent.children.delete(id);
  parent.order.delete(id);
}

function everyEntry(entry: Entry): Entry[] {
  return [entry, ...[...entry.children.values()].flatMap(everyEntry)];
}

function listTypes(wanted: string | undefined, abstract: boolean): Json {
  const listed = [...allTypes()].filter((type) => (abstract || !type.abstract) && (wanted === undefined || isA(type.name, wanted)));
  return listed.map((type) => ({ name: type.name, abstract: type.abstract || undefined, parent: type.parent ?? undefined }));
}

function typeProperties(name: string): Json {
  if (findType(name) === undefined) throw new QmpCommandError('DeviceNotFound', `Class '${name}' not found`);
  if (!isA(name, 'object')) throw invalid("Parameter 'typename' expects a QOM type");
  return listProperties(name).map(({ name: property, type }) => ({ name: property, type }));
}

function notFound(path: string): QmpCommandError {
  return new QmpCommandError('DeviceNotFound', `Device '${path}' not found`);
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
