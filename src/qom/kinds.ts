/** What objects of each type do besides holding their properties. */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { changedLimits, LIMIT_PROPERTIES, UNLIMITED, validateLimits, withProperty, type ThrottleLimits } from '../block/throttle-limits.js';
import { ThrottleGroup } from '../block/throttle.js';
import { loadTlsPsk, loadTlsX509, type TlsCredentials, type TlsEndpoint } from '../nbd/tls.js';
import type { Json, JsonDict } from '../qobject/value.js';
import { loadSecret } from './secret.js';

/** What a kind needs of the others. */
interface Surroundings {
  readonly clock: Clock;
  secret(id: string): Uint8Array | undefined;
  has(type: string): boolean;
}

/** An object behind its properties. Values come in with the type of the property. */
export interface Kind {
  get(property: string): Json;
  set(property: string, value: Json): void;
  /** All properties are set, and the object has its name. */
  complete(id: string): void;
  readonly inUse: boolean;
}

export function makeKind(type: string, around: Surroundings): Kind {
  switch (type) {
    case 'secret': return new Secret(around);
    case 'secret_keyring': return new Keyring();
    case 'throttle-group': return new Throttle(around);
    case 'iothread': return new EventLoop({ 'poll-max-ns': 32_768, 'poll-grow': 0, 'poll-shrink': 0 });
    case 'main-loop': return new MainLoop(around);
    case 'thread-context': return new ThreadContext({ 'thread-id': process.pid, 'cpu-affinity': Array.from({ length: availableParallelism() }, (_, cpu) => cpu) });
    case 'tls-creds-anon':
    case 'tls-creds-psk':
    case 'tls-creds-x509':
    case 'tls-cipher-suites': return new Tls(type, around);
    case 'authz-simple': return new Simple({});
    case 'authz-list': return new AuthzList({ policy: 'deny', rules: [] });
    case 'pr-manager-helper': return new PrManager({});
    default: return new Simple({});
  }
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}

class Simple implements Kind {
  protected readonly values: Record<string, Json>;
  #completed = false;

  constructor(defaults: JsonDict) {
    this.values = { ...defaults } as Record<string, Json>;
  }

  get inUse(): boolean { return false; }

  get(property: string): Json {
    return property === 'loaded' ? this.#completed : this.values[property] ?? '';
  }

  set(property: string, value: Json): void {
    this.values[property] = value;
  }

  complete(_id: string): void {
    this.#completed = true;
  }

  protected text(property: string): string {
    return (this.values[property] ?? '') as string;
  }
}

class Secret extends Simple {
  readonly #around: Surroundings;
  bytes: Uint8Array = new Uint8Array();

  constructor(around: Surroundings) {
    super({ format: 'raw' });
    this.#around = around;
  }

  override complete(id: string): void {
    const { data, file } = this.values;
    // empty data are data
    const options = { file: this.text('file'), format: this.text('format'), keyid: this.text('keyid'), iv: this.text('iv') };
    this.bytes = data === '' && file === undefined ? new Uint8Array() : loadSecret({ ...options, data: this.text('data') }, (key) => this.#around.secret(key));
    super.complete(id);
  }
}

class Keyring extends Simple {
  constructor() {
    super({ format: 'raw', serial: 0 });
  }

  override complete(): void {
    const serial = (this.values['serial'] as number) % 0x1_0000_0000;
    throw invalid(`Unable to read serial key ${(serial < 0 ? serial + 0x1_0000_0000 : serial).toString(16).padStart(8, '0')}: Required key not available`);
  }
}

class Throttle implements Kind {
  readonly #clock: Clock;
  #limits: ThrottleLimits = UNLIMITED;
  group: ThrottleGroup | null = null;

  constructor({ clock }: Surroundings) {
    this.#clock = clock;
  }

  get inUse(): boolean { return this.group !== null && this.group.memberCount > 0; }

  get(property: string): Json {
    const limits = this.group?.limits ?? this.#limits;
    const name = LIMIT_PROPERTIES.get(property);
    return name === undefined ? { ...limits } : limits[name];
  }

  set(property: string, value: Json): void {
    const numbers = (tree: Json): Partial<ThrottleLimits> =>
      Object.fromEntries(Object.entries(tree as JsonDict).map(([name, limit]) => [name, Number(limit)]));
    if (this.group !== null) this.group.setProperty(property, property === 'limits' ? numbers(value) : value);
    else this.#limits = property === 'limits' ? changedLimits(this.#limits, numbers(value)) : withProperty(this.#limits, property, Number(value));
  }

  complete(id: string): void {
    validateLimits(this.#limits);
    this.group = new ThrottleGroup(id, this.#limits, this.#clock);
  }
}

class EventLoop extends Simple {
  #completed = false;

  constructor(defaults: JsonDict) {
    super({ 'aio-max-batch': 0, 'thread-pool-min': 0, 'thread-pool-max': 64, ...defaults });
  }

  override set(property: string, value: Json): void {
    if ((value as number) < 0) throw invalid(`${property} value must be in range [0, 9223372036854775807]`);
    super.set(property, value);
    if (this.#completed && property.startsWith('thread-pool')) this.#checkPool();
  }

  override complete(id: string): void {
    this.#checkPool();
    this.#completed = true;
    super.complete(id);
  }

  #checkPool(): void {
    const [least, most] = [Number(this.values['thread-pool-min']), Number(this.values['thread-pool-max'])];
    if (least > most || most === 0 || most > 0x7fff_ffff) throw invalid('bad thread-pool-min/thread-pool-max values');
  }
}

class MainLoop extends EventLoop {
  readonly #around: Surroundings;

  constructor(around: Surroundings) {
    super({});
    this.#around = around;
  }

  override get inUse(): boolean { return true; }

  override complete(id: string): void {
    if (this.#around.has('main-loop')) throw invalid('only one main-loop instance allowed');
    super.complete(id);
  }
}

class ThreadContext extends Simple {}

class PrManager extends Simple {
  override complete(): void {
    const path = this.text('path');
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined) throw new BlockError('NOT_FOUND', `Failed to connect to '${path}': No such file or directory`, { errno: 'ENOENT' });
    throw new BlockError('NOT_SUPPORTED', `Failed to connect to '${path}': persistent reservations are not supported`);
  }
}

class Tls extends Simple {
  readonly #type: string;
  readonly #around: Surroundings;
  credentials: TlsCredentials | null = null;

  constructor(type: string, around: Surroundings) {
    super({ 'verify-peer': true, 'endpoint': 'client', 'sanity-check': true });
    this.#type = type;
    this.#around = around;
  }

  override complete(id: string): void {
    const endpoint = this.text('endpoint') as TlsEndpoint;
    const dir = this.text('dir');
    const priority = this.text('priority') || undefined;
    if (this.#type === 'tls-cipher-suites' && priority === undefined) throw invalid("'priority' property is not set");
    if (this.#type.endsWith('x509') || this.#type.endsWith('psk')) {
      if (dir === '') throw invalid("Missing 'dir' property value");
      const verifyPeer = this.values['verify-peer'] as boolean;
      if (endpoint === 'server' && this.text('username') !== '') throw invalid('username should not be set when endpoint=server');
      this.credentials = this.#type.endsWith('psk')
        ? loadTlsPsk({ endpoint, dir, priority, username: this.text('username') || undefined })
        : loadTlsX509({ endpoint, dir, verifyPeer, priority, sanityCheck: this.values['sanity-check'] as boolean, passphrase: this.#passphrase() });
    }
    super.complete(id);
  }

  #passphrase(): string | undefined {
    const id = this.text('passwordid');
    if (id === '') return undefined;
    const secret = this.#around.secret(id);
    if (secret === undefined) throw invalid(`No secret with id '${id}'`);
    return Buffer.from(secret).toString('utf8');
  }
}

interface AuthzRule {
  readonly match: string;
  readonly policy: 'allow' | 'deny';
  readonly format?: 'exact' | 'glob';
}

class AuthzList extends Simple {
  allows(identity: string): boolean {
    const rules = this.values['rules'] as unknown as readonly AuthzRule[];
    const rule = rules.find(({ match, format }) => (format === 'glob' ? globPattern(match).test(identity) : match === identity));
    return (rule?.policy ?? this.values['policy']) === 'allow';
  }
}

/** `*` and `?`, as GLib's patterns. */
function globPattern(glob: string): RegExp {
  const literal = glob.replace(/[.+^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(`^${literal.replaceAll('*', '[^]*').replaceAll('?', '[^]')}$`, 'u');
}

export function secretBytes(kind: Kind): Uint8Array | undefined {
  return kind instanceof Secret ? kind.bytes : undefined;
}

export function throttleGroupOf(kind: Kind): ThrottleGroup | undefined {
  return kind instanceof Throttle ? kind.group ?? undefined : undefined;
}

export function tlsCredentialsOf(kind: Kind): TlsCredentials | undefined {
  return kind instanceof Tls ? kind.credentials ?? undefined : undefined;
}

/** Undefined where the object does not authorize anybody. */
export function allows(kind: Kind, identity: string): boolean | undefined {
  if (kind instanceof AuthzList) return kind.allows(identity);
  return kind instanceof Simple && kind.get('identity') !== '' ? kind.get('identity') === identity : undefined;
}
