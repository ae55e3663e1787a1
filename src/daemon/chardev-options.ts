/** The grammar of `--chardev`. */
import type { Duplex } from 'node:stream';
import type { Json } from '../qobject/value.js';
import { parseSize } from '../base/bytes.js';
import { inheritedSocket, socketAddress, type SocketAddress } from './address.js';
import type { ChardevConfig } from './chardev.js';
import { BACKEND_NAMES, noLogFile, refuseSocketOptions, ringBytes, unknownBackend } from './commands-chardev.js';
import type { StorageDaemon } from './daemon.js';
import { badSize, boolOption, invalid, parseQemuOpts, type QemuOpts } from './qemu-opts.js';

const KNOWN: ReadonlySet<string> = new Set([
  'backend', 'path', 'input-path', 'host', 'port', 'fd', 'localaddr', 'localport', 'to', 'ipv4', 'ipv6', 'wait', 'server', 'delay', 'nodelay',
  'reconnect', 'telnet', 'tn3270', 'tls-creds', 'tls-authz', 'websocket', 'width', 'height', 'cols', 'rows', 'mux', 'signal', 'name', 'debug',
  'size', 'chardev', 'append', 'logfile', 'logappend', 'mouse', 'clipboard', 'abstract', 'tight',
]);

/** What is no text among them: checked where it stands, whatever the backend. */
const BOOLEANS: ReadonlySet<string> = new Set([
  'ipv4', 'ipv6', 'wait', 'server', 'delay', 'nodelay', 'telnet', 'tn3270', 'websocket', 'mux', 'signal', 'append', 'logappend', 'mouse', 'clipboard', 'abstract', 'tight',
]);
const NUMBERS: ReadonlySet<string> = new Set(['to', 'reconnect', 'width', 'height', 'cols', 'rows', 'debug']);

const ALIASES: Readonly<Record<string, string>> = { tty: 'serial', parport: 'parallel' };

export interface ParsedChardev {
  readonly id: string;
  readonly config: ChardevConfig;
  /** Several users are to share it: it goes by another name, and a mux in front of it by this one. */
  readonly mux: boolean;
}

interface ChardevSurroundings {
  readonly daemon: StorageDaemon;
  readonly stdio: () => Duplex;
  readonly warn: (text: string) => void;
}

/** `help` where that is what was asked for. */
export function parseChardevOptions(text: string, surroundings: ChardevSurroundings): ParsedChardev | 'help' {
  const options = parseQemuOpts(text, { impliedKey: 'backend', known: KNOWN, warn: surroundings.warn });
  let backend = options.values.get('backend');
  if (options.help) return 'help';
  for (const name of options.values.keys()) {
    if (BOOLEANS.has(name)) boolOption(options, name);
    else if (NUMBERS.has(name) && !/^-?\d{1,9}$/.test(options.values.get(name)!)) throw invalid(`Parameter '${name}' expects a number`);
    else if (name === 'size') sizeOption(options, name);
  }
  const { id } = options;
  if (id === null) throw invalid('chardev: no id specified');
  if (backend === undefined) throw invalid(`chardev: "${id}" missing backend`);
  const alias = ALIASES[backend];
  if (alias !== undefined) {
    surroundings.warn(`The alias '${backend}' is deprecated, use '${alias}' instead`);
    backend = alias;
  }
  if (!(BACKEND_NAMES as readonly string[]).includes(backend)) throw invalid(`'${backend}' is not a valid char driver name`);
  if (options.values.has('logfile')) throw noLogFile();
  return { id, config: configOf(backend, options, surroundings), mux: backend !== 'mux' && boolOption(options, 'mux') === true };
}

function configOf(backend: string, options: QemuOpts, { stdio, daemon }: ChardevSurroundings): ChardevConfig {
  const { values } = options;
  const needed = (name: string, otherwise: string): string => {
    const value = values.get(name);
    if (value === undefined) throw invalid(`chardev: ${otherwise}`);
    return value;
  };
  switch (backend) {
    case 'null': return { kind: 'null' };
    case 'memory':
    case 'ringbuf': return { kind: 'ringbuf', bytes: ringBytes(sizeOption(options, 'size')) };
    case 'file': return {
      kind: 'file', out: needed('path', 'file: no filename given'), input: values.get('input-path') ?? null, append: boolOption(options, 'append') ?? false,
    };
    case 'pipe': return { kind: 'pipe', path: needed('path', 'pipe: no device path given') };
    case 'pty': return { kind: 'pty' };
    case 'mux': return { kind: 'mux', base: needed('chardev', 'mux: no chardev given') };
    case 'stdio': {
      const stream = stdio();
      return { kind: 'stdio', stream: () => stream };
    }
    case 'socket': return socketConfig(options, daemon);
    case 'serial': needed('path', 'serial/tty: no device path given'); break;
    case 'parallel': needed('path', 'parallel: no device path given'); break;
    case 'udp': if (!values.has('port')) throw invalid('chardev: udp: remote port not specified');
  }
  throw unknownBackend(backend);
}

function sizeOption({ values }: QemuOpts, name: string): number | undefined {
  const text = values.get(name);
  if (text === undefined) return undefined;
  try {
    return parseSize(text, name);
  } catch {
    // in QEMU's words
  }
  throw badSize(name);
}

function socketConfig(options: QemuOpts, daemon: StorageDaemon): ChardevConfig {
  const { values } = options;
  const [path, host, fd, port] = ['path', 'host', 'fd', 'port'].map((name) => values.get(name));
  if ([path, host, fd].filter((given) => given !== undefined).length > 1) throw invalid("None or one of 'path', 'fd' or 'host' option required.");
  if (host !== undefined && port === undefined) throw invalid('chardev: socket: no port given');
  const server = boolOption(options, 'server') ?? false;
  const reconnect = values.get('reconnect');
  const wait = boolOption(options, 'wait');
  const given: Record<string, Json> = {};
  for (const name of ['telnet', 'tn3270', 'websocket']) given[name] = boolOption(options, name) ?? false;
  for (const name of ['tls-creds', 'tls-authz', 'reconnect']) if (values.has(name)) given[name] = values.get(name)!;
  if (wait !== undefined) given['wait'] = wait;
  refuseSocketOptions(daemon, given, server);
  return { kind: 'socket', address: addressOf(options), server, wait: server && (wait ?? true), reconnectSeconds: Number(reconnect ?? 0) };
}

function addressOf(options: QemuOpts): SocketAddress {
  const [path, host, fd, port, to] = ['path', 'host', 'fd', 'port', 'to'].map((name) => options.values.get(name));
  if (path !== undefined) return socketAddress({ type: 'unix', path, abstract: boolOption(options, 'abstract') ?? false, tight: boolOption(options, 'tight') ?? true });
  if (host !== undefined) return { type: 'inet', host, port: port!, to: to === undefined ? null : Number(to) };
  return { type: 'fd', fd: inheritedSocket(fd ?? '') };
}
