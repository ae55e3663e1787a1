/**
 * Names of exports: URIs (doc/uri.md of the NBD project, with libnbd's TLS parameters) and QEMU's older
 * `nbd:unix:PATH[:exportname=NAME]` and `nbd:HOST:PORT[:exportname=NAME]`.
 */
import { userInfo } from 'node:os';
import { BlockError } from '../base/errors.js';
import { type NbdAddress } from './client-socket.js';
import { NBD_SCHEME } from './name.js';
import { DEFAULT_PORT, MAX_STRING } from './protocol.js';
import { loadTlsPskFile, loadTlsX509, systemTrust, type TlsCredentials } from './tls.js';

export interface NbdTarget {
  readonly address: NbdAddress;
  readonly exportName: string;
  /** Null: plain text. */
  readonly tls: NbdTargetTls | null;
}

interface NbdTargetTls {
  /** Directory of ca-cert.pem and so on. */
  readonly certificates: string | null;
  readonly pskFile: string | null;
  readonly username: string | null;
  readonly verifyPeer: boolean;
  /** What the server's certificate is for; null where neither the URI nor its host tells. */
  readonly hostname: string | null;
}

const TLS_PARAMETERS = ['tls-certificates', 'tls-psk-file', 'tls-username', 'tls-verify-peer', 'tls-verify', 'tls-hostname', 'tls-type'];

export function parseNbdName(name: string): NbdTarget {
  const target = NBD_SCHEME.test(name) ? parseUri(name) : parseLegacy(name);
  if (Buffer.byteLength(target.exportName) > MAX_STRING) throw refusal(name, 'the export name is too long');
  if (target.exportName.includes('\0')) throw refusal(name, 'the export name has a NUL character');
  return target;
}

/** The credentials that a target's TLS parameters name, read from the disk. */
export function loadTargetTls(tls: NbdTargetTls | null): { readonly credentials: TlsCredentials; readonly hostname: string | null } | null {
  if (tls === null) return null;
  const { verifyPeer, hostname } = tls;
  if (tls.pskFile !== null) return { credentials: loadTlsPskFile(tls.pskFile, tls.username ?? userInfo().username), hostname };
  if (tls.certificates !== null) return { credentials: loadTlsX509({ endpoint: 'client', dir: tls.certificates, verifyPeer }), hostname };
  return { credentials: systemTrust(verifyPeer), hostname };
}

function parseUri(uri: string): NbdTarget {
  const [whole, scheme, transport] = NBD_SCHEME.exec(uri)!;
  const secure = scheme!.toLowerCase() === 'nbds';
  const unix = transport?.toLowerCase() === 'unix';
  const rest = uri.slice(whole.length);
  const [, authority, path, query] = /^([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?$/s.exec(rest)!;
  const parameters = parseQuery(uri, query ?? '');
  for (const key of parameters.keys()) {
    if (key !== 'socket' && !TLS_PARAMETERS.includes(key)) throw refusal(uri, `the parameter '${key}' is not known`);
  }
  const at = authority!.lastIndexOf('@');
  const user = at < 0 ? null : decode(uri, authority!.slice(0, at));
  const host = authority!.slice(at + 1);
  const socket = parameters.get('socket');
  if (unix && (socket === undefined || socket === '')) throw refusal(uri, "a '+unix' URI needs a 'socket' parameter");
  if (unix && host !== '') throw refusal(uri, "a '+unix' URI has no host");
  if (!unix && socket !== undefined) throw refusal(uri, "the parameter 'socket' needs a '+unix' URI");
  const address: NbdAddress = unix ? { type: 'unix', path: socket! } : parseHost(uri, host);
  return {
    address,
    exportName: decode(uri, path!.startsWith('/') ? path!.slice(1) : path!),
    tls: secure ? tlsOf(uri, parameters, user, address) : null,
  };
}

function tlsOf(uri: string, parameters: ReadonlyMap<string, string>, user: string | null, address: NbdAddress): NbdTargetTls {
  const type = parameters.get('tls-type');
  const pskFile = parameters.get('tls-psk-file') ?? null;
  const certificates = parameters.get('tls-certificates') ?? null;
  if (pskFile !== null && certificates !== null) throw refusal(uri, "'tls-psk-file' and 'tls-certificates' exclude each other");
  if (type !== undefined && type !== 'x509' && type !== 'psk') throw refusal(uri, `tls-type '${type}' is not supported`);
  if (type === 'psk' && pskFile === null) throw refusal(uri, "tls-type 'psk' needs 'tls-psk-file'");
  return {
    certificates, pskFile,
    username: parameters.get('tls-username') ?? user,
    verifyPeer: parseFlag(uri, parameters.get('tls-verify-peer') ?? parameters.get('tls-verify')),
    hostname: parameters.get('tls-hostname') ?? (address.type === 'inet' ? address.host : null),
  };
}

function parseFlag(uri: string, text: string | undefined): boolean {
  if (text === undefined || /^(1|t|true|y|yes|on)$/i.test(text)) return true;
  if (/^(0|f|false|n|no|off)$/i.test(text)) return false;
  throw refusal(uri, `tls-verify-peer is 0 or 1, got '${text}'`);
}

function parseHost(name: string, text: string): NbdAddress {
  const match = /^(?:\[([0-9a-f:.%\w]+)\]|([^:[\]]*))(?::(\d*))?$/i.exec(text);
  if (match === null) throw refusal(name, `'${text}' is not HOST or HOST:PORT (an IPv6 address goes into brackets)`);
  const host = match[1] ?? decode(name, match[2]!);
  const port = match[3] === undefined || match[3] === '' ? DEFAULT_PORT : Number(match[3]);
  if (port < 1 || port > 65_535) throw refusal(name, `port ${match[3]} is not in 1 … 65535`);
  return { type: 'inet', host: host === '' ? 'localhost' : host, port };
}

function parseQuery(uri: string, query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query === '' ? [] : query.split(/[&;]/)) {
    const equals = part.indexOf('=');
    const key = decode(uri, equals < 0 ? part : part.slice(0, equals));
    if (parameters.has(key)) throw refusal(uri, `the parameter '${key}' is given twice`);
    parameters.set(key, equals < 0 ? '' : decode(uri, part.slice(equals + 1)));
  }
  return parameters;
}

function parseLegacy(name: string): NbdTarget {
  const marker = ':exportname=';
  const at = name.indexOf(marker);
  const exportName = at < 0 ? '' : name.slice(at + marker.length);
  const where = name.slice('nbd:'.length, at < 0 ? undefined : at);
  if (where.startsWith('unix:')) {
    const path = where.slice('unix:'.length);
    if (path === '') throw refusal(name, 'a socket path is expected after nbd:unix:');
    return { address: { type: 'unix', path }, exportName, tls: null };
  }
  if (!/:\d+$/.test(where)) throw refusal(name, 'expected nbd:HOST:PORT or nbd:unix:PATH');
  return { address: parseHost(name, where), exportName, tls: null };
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refusal(uri, `'${text}' is not percent-encoded as UTF-8`);
  }
}

function refusal(name: string, why: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', `'${name}' is no NBD export's name: ${why}`);
}
