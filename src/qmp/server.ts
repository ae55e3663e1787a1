/**
 * QMP for any number of monitors. Commands come in as a table; arguments reach them checked by the schema; what they return or throw
 * goes out as QEMU prints it. One command runs at a time, whichever monitor it came from.
 */
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.js';
import { introspect } from '../qapi/introspect.js';
import { schema } from '../qapi/schema.js';
import { visit } from '../qapi/visit.js';
import { orderedKeys } from '../qobject/dict-order.js';
import type { JsonItem } from '../qobject/parser.js';
import { getKey, isDict, newDict, type Json, type JsonDict } from '../qobject/value.js';
import { errorReply, QmpCommandError } from './command-error.js';
import { EventLimits } from './event-limits.js';
import { Session, type SessionOptions } from './session.js';

/** Returns the member `return` of the reply; nothing stands for `{}`. */
export type QmpCommand = (args: JsonDict, session: Session) => Promise<Json | void> | Json | void;

export type CommandTable = Readonly<Record<string, QmpCommand>>;

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  readonly package: string;
}

export interface QmpServerOptions {
  /** All but `qmp_capabilities`, `query-version`, `query-commands` and `query-qmp-schema`, which are the server's own. */
  readonly commands: CommandTable;
  readonly version: QmpVersion;
  readonly clock: Clock;
}

const NO_ARGUMENTS = newDict();

export class QmpServer {
  readonly #commands: ReadonlyMap<string, QmpCommand>;
  readonly #version: JsonDict;
  readonly #clock: Clock;
  readonly #sessions = new Set<Session>();
  readonly #limits: EventLimits;
  /** Ends when the commands so far have ended. */
  #turn: Promise<void> = Promise.resolve();

  /** Throws where a command is not in the schema: it could not be called. */
  constructor({ commands, version, clock }: QmpServerOptions) {
    this.#commands = new Map(Object.entries({ ...this.#ownCommands(), ...commands }));
    for (const name of this.#commands.keys()) if (schema().command(name) === undefined) throw new Error(`the command '${name}' is not in the schema`);
    const { major, minor, micro, package: made } = version;
    this.#version = { qemu: { major, minor, micro }, package: made };
    this.#clock = clock;
    this.#limits = new EventLimits(clock, (event) => this.#broadcast(event));
  }

  /** Greets the client at the other end of the stream, and serves it until it goes. */
  attach(stream: Duplex, options: SessionOptions = {}): Session {
    const session = new Session(stream, {
      answer: (item, from) => this.#answer(item, from),
      closed: (from) => this.#sessions.delete(from),
    }, (from) => ({ QMP: { version: this.#version, capabilities: from.offersOob ? ['oob'] : [] } }), options);
    this.#sessions.add(session);
    return session;
  }

  /** To every client that has negotiated. */
  emit(event: string, data: JsonDict | null = null): void {
    if (schema().event(event) === undefined) throw new Error(`the event '${event}' is not in the schema`);
    const now = this.#clock.wallMs();
    const seconds = Math.floor(now / 1000);
    const timestamp = { seconds, microseconds: Math.floor((now - seconds * 1000) * 1000) };
    this.#limits.emit(event, data ?? {}, { event, ...data === null ? {} : { data }, timestamp });
  }

  /** Resolves when all that was sent has been read, and the clients are let go. */
  async close(): Promise<void> {
    const sessions = [...this.#sessions];
    for (const session of sessions) session.end();
    await Promise.all(sessions.map((session) => session.ended));
  }

  /** Clients are greeted, but what they ask for waits until the function is called. */
  holdCommands(): () => void {
    const { promise, resolve } = makePromise();
    this.#turn = this.#turn.then(() => promise);
    return resolve;
  }

  #broadcast(event: JsonDict): void {
    for (const session of [...this.#sessions]) if (session.negotiated) session.send(event);
  }

  async #answer(item: JsonItem, session: Session): Promise<JsonDict> {
    if (item.error !== undefined) return { error: { class: 'GenericError', desc: item.error } };
    const request = item.value;
    const id = isDict(request) ? getKey(request, 'id') : undefined;
    const reply: Record<string, Json> = {};
    try {
      reply['return'] = await this.#carryOut(request, session);
    } catch (error) {
      reply['error'] = errorReply(error);
    }
    return id === undefined ? reply : { ...reply, id };
  }

  async #carryOut(request: Json, session: Session): Promise<Json> {
    const { key, name, args } = checkRequest(request, session.capabilities?.includes('oob') === true);
    if (!session.negotiated && name !== 'qmp_capabilities') {
      throw new QmpCommandError('CommandNotFound', "Expecting capabilities negotiation with 'qmp_capabilities'");
    }
    const command = this.#commands.get(name);
    if (command === undefined) throw new QmpCommandError('CommandNotFound', `The command ${name} has not been found`);
    if (key === 'exec-oob') throw new QmpCommandError('GenericError', `The command ${name} does not support OOB`);
    const { argument } = schema().command(name)!;
    const checked = visit(schema(), argument ?? 'q_empty', args, 'json') as JsonDict;
    return await this.#inTurn(async () => await command(checked, session) ?? {});
  }

  async #inTurn(work: () => Promise<Json>): Promise<Json> {
    const before = this.#turn;
    const { promise, resolve } = makePromise();
    this.#turn = promise;
    await before;
    try {
      return await work();
    } finally {
      resolve();
    }
  }

  #ownCommands(): CommandTable {
    return {
      'qmp_capabilities': ({ enable }, session) => negotiate(session, enable as readonly string[] | undefined),
      'query-version': () => this.#version,
      // the newest first
      'query-commands': () => [...schema().peer, ...schema().extensions].filter(({ name }) => this.#commands.has(name)).reverse().map(({ name }) => ({ name })),
      'query-qmp-schema': () => introspect(schema()),
    };
  }
}

function negotiate(session: Session, enable: readonly string[] = []): void {
  if (session.negotiated) throw new QmpCommandError('CommandNotFound', 'Capabilities negotiation is already complete, command ignored');
  const missing = session.offersOob ? [] : enable;
  if (missing.length > 0) throw new QmpCommandError('GenericError', `Capability ${missing.join(', ')} not available`);
  session.capabilities = enable;
}

interface Request {
  readonly key: 'execute' | 'exec-oob';
  readonly name: string;
  readonly args: JsonDict;
}

/** Checks the members of a request in the order in which QEMU finds them. */
function checkRequest(request: Json, allowOob: boolean): Request {
  if (!isDict(request)) throw generic('QMP input must be a JSON object');
  let found: { readonly key: 'execute' | 'exec-oob'; readonly name: string } | null = null;
  let args: JsonDict = NO_ARGUMENTS;
  for (const key of orderedKeys(request)) {
    const value = request[key]!;
    if (key === 'execute' || (key === 'exec-oob' && allowOob)) {
      if (typeof value !== 'string') throw generic(`QMP input member '${key}' must be a string`);
      if (found !== null) throw generic(`QMP input member '${key}' clashes with '${found.key}'`);
      found = { key, name: value };
    } else if (key === 'arguments') {
      if (!isDict(value)) throw generic("QMP input member 'arguments' must be an object");
      args = value;
    } else if (key !== 'id') {
      throw generic(`QMP input member '${key}' is unexpected`);
    }
  }
  if (found === null) throw generic("QMP input lacks member 'execute'");
  return { ...found, args };
}

function generic(description: string): QmpCommandError {
  return new QmpCommandError('GenericError', description);
}

function makePromise(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => { resolve = done; });
  return { promise, resolve };
}
