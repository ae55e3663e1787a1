/**
 * TLS credentials of both sides, from a directory as QEMU's `tls-creds-x509` and `tls-creds-psk` objects read it, and
 * the upgrade of a connected socket. What is read from the disk is read once, when the object is made.
 */
import type { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import { join } from 'node:path';
import type tls from 'node:tls';
import { systemClock } from '../base/clock.js';
import { BlockError, errnoOf, errnoText, messageOf } from '../base/errors.js';

// Both load at the first use: short commands that speak to plain servers must not pay for them.
const nodeTls = (): typeof tls => process.getBuiltinModule('node:tls');
const certificateOf = (block: string): X509Certificate => new (process.getBuiltinModule('node:crypto').X509Certificate)(block);

export type TlsEndpoint = 'client' | 'server';

export interface TlsX509Options {
  readonly endpoint: TlsEndpoint;
  /** Holds ca-cert.pem, server-cert.pem and server-key.pem, client-cert.pem and client-key.pem, and perhaps ca-crl.pem. */
  readonly dir: string;
  /** Default true. A server then wants a certificate of every client; a client checks the server's chain and host name. */
  readonly verifyPeer?: boolean | undefined;
  /** Default true: expired certificates and a chain that cannot work are refused when the object is made. */
  readonly sanityCheck?: boolean | undefined;
  /** A GnuTLS priority string; only its protocol versions mean something here. */
  readonly priority?: string | undefined;
  /** Decrypts the private key (the data of QEMU's `passwordid` secret). */
  readonly passphrase?: string | undefined;
}

export interface TlsPskOptions {
  readonly endpoint: TlsEndpoint;
  /** Holds keys.psk: lines of `user:hexkey`. */
  readonly dir: string;
  /** Whose key a client uses; default `qemu`. */
  readonly username?: string | undefined;
  readonly priority?: string | undefined;
}

/** What one side needs to speak TLS. */
export interface TlsCredentials {
  readonly kind: 'x509' | 'psk';
  readonly endpoint: TlsEndpoint;
  readonly verifyPeer: boolean;
  /** Options of a client's session; `hostname` is what the server's certificate must be for, null where nobody knows. */
  clientOptions(hostname: string | null): tls.ConnectionOptions;
  serverOptions(): tls.TlsOptions;
}

/**
 * Suites that OpenSSL and GnuTLS share for pre-shared keys, each by name: OpenSSL's alias `PSK` would also allow suites
 * without forward secrecy, and TLS 1.3 keys from a callback are bound to SHA-256.
 */
const PSK_CIPHERS = [
  'TLS_AES_128_GCM_SHA256', 'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305', 'ECDHE-PSK-AES256-CBC-SHA384', 'ECDHE-PSK-AES128-CBC-SHA256',
  'DHE-PSK-AES256-GCM-SHA384', 'DHE-PSK-AES128-GCM-SHA256', 'DHE-PSK-CHACHA20-POLY1305',
].join(':');
const MAX_PSK_BYTES = 512;
const HANDSHAKE_TIMEOUT_MS = 10_000;

export function loadTlsX509(options: TlsX509Options): TlsCredentials {
  const { endpoint, dir } = options;
  const verifyPeer = options.verifyPeer ?? true;
  const file = (name: string): string => join(dir, name);
  const required = endpoint === 'server';
  const ca = readCredential(file('ca-cert.pem'), true)!;
  const crl = readCredential(file('ca-crl.pem'), false);
  const cert = readCredential(file(`${endpoint}-cert.pem`), required);
  const key = readCredential(file(`${endpoint}-key.pem`), required);
  if ((cert === undefined) !== (key === undefined)) {
    throw new BlockError('INVALID_ARGUMENT', `'${dir}' must hold both ${endpoint}-cert.pem and ${endpoint}-key.pem, or neither`);
  }
  if (options.sanityCheck ?? true) checkChain(endpoint, file('ca-cert.pem'), ca, file(`${endpoint}-cert.pem`), cert);
  const context: tls.SecureContextOptions = { ca, ...versionsOf(options.priority) };
  if (crl !== undefined) context.crl = crl;
  if (cert !== undefined) Object.assign(context, { cert, key });
  if (options.passphrase !== undefined) context.passphrase = options.passphrase;
  refuseUnusable(dir, context);
  return {
    kind: 'x509', endpoint, verifyPeer,
    clientOptions: (hostname) => ({ ...context, rejectUnauthorized: verifyPeer, ...identityOf(hostname, verifyPeer) }),
    serverOptions: () => ({ ...context, requestCert: verifyPeer, rejectUnauthorized: verifyPeer }),
  };
}

export function loadTlsPsk(options: TlsPskOptions): TlsCredentials {
  const { endpoint, dir, username = 'qemu' } = options;
  const path = join(dir, 'keys.psk');
  const keys = parseKeys(path, readCredential(path, true)!.toString('utf8'));
  if (endpoint === 'client' && !keys.has(username)) throw new BlockError('NOT_FOUND', `Username ${username} not found in PSK file ${path}`);
  return pskCredentials(endpoint, username, keys, options.priority);
}

/** As loadTlsPsk for a client, from the file itself (the `tls-psk-file` of a URI). */
export function loadTlsPskFile(path: string, username: string): TlsCredentials {
  const keys = parseKeys(path, readCredential(path, true)!.toString('utf8'));
  if (!keys.has(username)) throw new BlockError('NOT_FOUND', `Username ${username} not found in PSK file ${path}`);
  return pskCredentials('client', username, keys, undefined);
}

/** A client's trust in the authorities that the system trusts, for an `nbds` URI that names no certificates. */
export function systemTrust(verifyPeer = true): TlsCredentials {
  return {
    kind: 'x509', endpoint: 'client', verifyPeer,
    clientOptions: (hostname) => ({ ...versionsOf(undefined), rejectUnauthorized: verifyPeer, ...identityOf(hostname, verifyPeer) }),
    serverOptions: () => { throw new BlockError('INVALID_ARGUMENT', 'these TLS credentials are for clients'); },
  };
}

function pskCredentials(endpoint: TlsEndpoint, username: string, keys: ReadonlyMap<string, Buffer>, priority: string | undefined): TlsCredentials {
  const context = { ciphers: PSK_CIPHERS, ...versionsOf(priority) };
  return {
    kind: 'psk', endpoint, verifyPeer: true,
    clientOptions: () => ({
      ...context,
      pskCallback: () => ({ identity: username, psk: keys.get(username)! }),
      // A session with our key has no certificate. One that has it was made without the key, by whoever holds any certificate
      checkServerIdentity: (_host, { raw }) => raw === undefined ? undefined : new Error('the server did not use the pre-shared key'),
    }),
    serverOptions: () => ({ ...context, pskCallback: (_socket: tls.TLSSocket, identity: string) => keys.get(identity) ?? null }),
  };
}

function readCredential(path: string, required: boolean): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (!required && errno === 'ENOENT') return undefined;
    const code = errno === 'ENOENT' ? 'NOT_FOUND' : 'IO';
    throw new BlockError(code, `Unable to access credentials ${path}: ${errnoText(errno)}`, { errno, cause: error });
  }
}

/** `user:hexkey` a line; `#` starts a comment. */
function parseKeys(path: string, text: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.lastIndexOf(':');
    const hex = line.slice(colon + 1).trim();
    if (colon <= 0 || !/^(?:[0-9a-f]{2})+$/i.test(hex) || hex.length > 2 * MAX_PSK_BYTES) {
      throw new BlockError('INVALID_ARGUMENT', `line ${index + 1} of '${path}' is not of the form USER:HEXKEY`);
    }
    keys.set(line.slice(0, colon), Buffer.from(hex, 'hex'));
  }
  return keys;
}

/** A literal address goes into no server name indication. */
function identityOf(hostname: string | null, verifyPeer: boolean): tls.ConnectionOptions {
  if (hostname === null || !verifyPeer) return { checkServerIdentity: () => undefined, ...(hostname === null || isIP(hostname) !== 0 ? {} : { servername: hostname }) };
  return {
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    checkServerIdentity: (_name, certificate) => nodeTls().checkServerIdentity(hostname, certificate),
  };
}

/**
 * The protocol versions that a GnuTLS priority string leaves (`NORMAL:-VERS-TLS1.3`). What it takes away besides cannot
 * be taken away here, and is refused rather than silently kept.
 */
function versionsOf(priority: string | undefined): Pick<tls.SecureContextOptions, 'minVersion' | 'maxVersion'> {
  const allowed = new Set<tls.SecureVersion>(['TLSv1.2', 'TLSv1.3']);
  const fail = (why: string): never => {
    throw new BlockError('NOT_SUPPORTED', `Unable to set TLS session priority ${priority}: ${why}`);
  };
  for (const word of (priority ?? '').split(':')) {
    const match = /^([-+!])VERS-(ALL|TLS-ALL|TLS1\.\d)$/.exec(word);
    if (match === null) {
      if (/^[-!]/.test(word)) fail(`'${word}' is not understood`);
      continue;
    }
    const version = match[2]!;
    for (const one of version.endsWith('ALL') ? ['TLSv1.2', 'TLSv1.3'] as const : [version.replace('TLS', 'TLSv') as tls.SecureVersion]) {
      if (match[1] !== '+') allowed.delete(one);
      else if (one === 'TLSv1.2' || one === 'TLSv1.3') allowed.add(one);
    }
  }
  if (allowed.size === 0) fail('it leaves no version that is still secure');
  return { minVersion: allowed.has('TLSv1.2') ? 'TLSv1.2' : 'TLSv1.3', maxVersion: allowed.has('TLSv1.3') ? 'TLSv1.3' : 'TLSv1.2' };
}

/** Tells of a wrong passphrase or a broken file now, and not at the first connection. */
function refuseUnusable(dir: string, context: tls.SecureContextOptions): void {
  try {
    nodeTls().createSecureContext(context);
  } catch (error) {
    throw new BlockError('INVALID_ARGUMENT', `the TLS credentials in '${dir}' cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

function parseCertificates(path: string, pem: Buffer): X509Certificate[] {
  const blocks = pem.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length > 0) return blocks.map(certificateOf);
  } catch (error) {
    throw new BlockError('INVALID_ARGUMENT', `Unable to import certificates from ${path}: ${messageOf(error)}`, { cause: error });
  }
  throw new BlockError('INVALID_ARGUMENT', `Unable to import certificates from ${path}: it holds none`);
}

/** What QEMU refuses when the object is made: certificates out of their time, an authority that is none, a chain that ends elsewhere. */
function checkChain(endpoint: TlsEndpoint, caPath: string, ca: Buffer, certPath: string, cert: Buffer | undefined): void {
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  const checkTimes = (one: X509Certificate, kind: string, path: string): void => {
    const now = systemClock.wallMs();
    if (Date.parse(one.validTo) < now) refuse(`The ${kind} certificate ${path} has expired`);
    if (Date.parse(one.validFrom) > now) refuse(`The ${kind} certificate ${path} is not yet active`);
  };
  const authorities = parseCertificates(caPath, ca);
  for (const authority of authorities) {
    checkTimes(authority, 'CA', caPath);
    if (!authority.ca) refuse(`The certificate ${caPath} basic constraints do not show a CA`);
  }
  if (cert === undefined) return;
  const chain = parseCertificates(certPath, cert);
  const own = chain[0]!;
  checkTimes(own, endpoint, certPath);
  if (own.ca) refuse(`The certificate ${certPath} basic constraints show a CA, but we need one for a ${endpoint}`);
  const issuers = [...chain.slice(1), ...authorities];
  let last = own;
  for (let steps = 0; steps <= issuers.length; steps++) {
    if (authorities.some((authority) => last.checkIssued(authority) && last.verify(authority.publicKey))) return;
    const next = issuers.find((issuer) => issuer !== last && last.checkIssued(issuer) && last.verify(issuer.publicKey));
    if (next === undefined) break;
    last = next;
  }
  refuse(`Our own certificate ${certPath} failed validation against ${caPath}: The certificate hasn't got a known issuer`);
}

/** Turns a client's connected socket, on which nothing is waiting to be read, into a TLS session. Destroys it where that fails. */
export function startTlsClient(
  socket: Socket, credentials: TlsCredentials, hostname: string | null, timeoutMs: number = HANDSHAKE_TIMEOUT_MS,
): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const session = nodeTls().connect({ ...credentials.clientOptions(hostname), socket });
    // the session tells of errors; the socket below must not tell nobody
    socket.on('error', () => {});
    awaitSession(socket, session, 'secureConnect', timeoutMs, resolve, reject);
  });
}

/**
 * The server's side of the same. The check of the client's certificate is part of tls.Server and of nothing smaller, so
 * the socket is handed to a server that listens nowhere.
 */
export function startTlsServer(socket: Socket, credentials: TlsCredentials, timeoutMs: number = HANDSHAKE_TIMEOUT_MS): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      socket.destroy();
      reject(tlsFailure(error));
    };
    const server = nodeTls().createServer({ ...credentials.serverOptions(), handshakeTimeout: timeoutMs });
    server.once('secureConnection', (session) => {
      socket.off('close', closed);
      resolve(session);
    });
    server.once('tlsClientError', fail);
    const closed = (): void => fail(new Error('the connection was closed'));
    socket.once('close', closed);
    server.emit('connection', socket);
  });
}

function awaitSession(
  socket: Socket, session: tls.TLSSocket, event: string, timeoutMs: number, resolve: (session: tls.TLSSocket) => void, reject: (error: BlockError) => void,
): void {
  const settle = (): void => {
    clearTimeout(timer);
    session.off('error', fail).off('close', closed).off(event, ready);
  };
  const fail = (error: unknown): void => {
    settle();
    session.on('error', () => {});
    session.destroy();
    socket.destroy();
    reject(tlsFailure(error));
  };
  const closed = (): void => fail(new Error('the connection was closed'));
  const ready = (): void => {
    settle();
    resolve(session);
  };
  const timer = setTimeout(() => fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  session.on('error', fail).on('close', closed).on(event, ready);
}

function tlsFailure(error: unknown): BlockError {
  const errno = errnoOf(error);
  const why = errno !== undefined && /^E[A-Z]+$/.test(errno) ? errnoText(errno) : messageOf(error);
  return new BlockError('PEER', `TLS handshake failed: ${why}`, { errno: 'EIO', cause: error });
}
