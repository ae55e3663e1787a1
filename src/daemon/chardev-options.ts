/** The grammar of `--chardev`. */
import type { Duplex } from 'node:stream';
import { inheritedSocket, type SocketAddress } from './address.js';
import type { ChardevConfig } from './chardev.js';
import { BACKEND_NAMES, RING_BYTES } from './commands-chardev.js';
import { boolOption, invalid, parseQemuOpts, type QemuOpts } from './qemu-opts.js';

const KNOWN: ReadonlySet<string> = new Set([
  'backend', 'path', 'input-path', 'host', 'port', 'fd', 'localaddr', 'localport', 'to', 'ipv4', 'ipv6', 'wait', 'server', 'delay', 'nodelay',
  'reconnect', 'telnet', 'tn3270', 'tls-creds', 'tls-authz', 'websocket', 'width', 'height', 'cols', 'rows', 'mux', 'signal', 'name', 'debug',
  'size', 'chardev', 'append', 'logfile', 'logappend', 'mouse', 'clipboard', 'abstract', 'tight',
]);

export interface ParsedChardev {
  readonly id: string;
  readonly config: ChardevConfig;
}

export interface ChardevSurroundings {
  readonly stdio: () => Duplex;
  readonly warn: (text: string) => void;
}

/** `help` where that is what was asked for. */
export function parseChardevOptions(text: string, surroundings: ChardevSurroundings): ParsedChardev | 'help' {
  const options = parseQemuOpts(text, { impliedKey: 'backend', known: KNOWN, warn: surroundings.warn });
  const backend = options.values.get('backend');
  if (options.help) return 'help';
  const { id } = options;
  if (id === null) throw invalid('chardev: no id specified');
  if (backend === undefined) throw invalid(`chardev: "${id}" missing backend`);
  if (!(BACKEND_NAMES as readonly string[]).includes(backend)) throw invalid(`'${backend}' is not a valid char driver name`);
  return { id, config: configOf(backend, options, surroundings) };
}

function configOf(backend: string, options: QemuOpts, { stdio }: ChardevSurroundings): ChardevConfig {
  switch (backend) {
    case 'null': return { kind: 'null' };
    case 'memory':
    case 'ringbuf': return { kind: 'ringbuf', bytes: Number(options.values.get('size') ?? RING_BYTES) };
    case 'stdio': {
      const stream = stdio();
      return { kind: 'stdio', stream: () => stream };
    }
    case 'socket': return socketConfig(options);
    default: throw invalid(`character devices of type '${backend}' are not available`);
  }
}

function socketConfig(options: QemuOpts): ChardevConfig {
  const { values } = options;
  const [path, host, fd, port] = ['path', 'host', 'fd', 'port'].map((name) => values.get(name));
  if ([path, host, fd].filter((given) => given !== undefined).length > 1) throw invalid("None or one of 'path', 'fd' or 'host' option required.");
  if (host !== undefined && port === undefined) throw invalid('chardev: socket: no port given');
  const server = boolOption(options, 'server') ?? false;
  const wait = boolOption(options, 'wait');
  if (wait !== undefined && !server) throw invalid("'wait' option is incompatible with socket in client connect mode");
  for (const name of ['telnet', 'tn3270', 'websocket']) {
    if (boolOption(options, name) === true) throw invalid(`'${name}' is not available`);
  }
  if (values.has('tls-creds')) throw invalid("'tls-creds' is not available for character devices");
  const reconnect = values.get('reconnect') ?? '0';
  if (!/^\d{1,9}$/.test(reconnect)) throw invalid("Parameter 'reconnect' expects a number");
  return { kind: 'socket', address: addressOf(path, host, fd, port), server, wait: server && (wait ?? true), reconnectSeconds: Number(reconnect) };
}

function addressOf(path: string | undefined, host: string | undefined, fd: string | undefined, port: string | undefined): SocketAddress {
  if (path !== undefined) return { type: 'unix', path };
  if (host !== undefined) return { type: 'inet', host, port: port!, to: null };
  return { type: 'fd', fd: inheritedSocket(fd ?? '') };
}
