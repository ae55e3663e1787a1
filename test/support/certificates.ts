/** Throw-away certificates and keys for TLS, in the layout of QEMU's credential objects. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface CertificateOptions {
  /** Subject alternative names of the server; default `DNS:localhost,IP:127.0.0.1`. */
  readonly serverNames?: string;
  /** Days that all are valid for; 0 makes certificates that have expired already. */
  readonly days?: number;
  /** In openssl's form; default `/CN=test client`. */
  readonly clientSubject?: string;
  /** Encrypts the server's key. */
  readonly passphrase?: string;
}

/** Makes an authority, and a server's and a client's certificate by it, all in `dir`. */
export function makeCertificates(dir: string, options: CertificateOptions = {}): string {
  const { serverNames = 'DNS:localhost,IP:127.0.0.1', days = 2, passphrase, clientSubject = '/CN=test client' } = options;
  mkdirSync(dir, { recursive: true });
  const openssl = (...args: string[]): void => { execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' }); };
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-days', '2', '-subj', '/CN=test authority',
    '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  for (const [who, extensions] of [
    ['server', `subjectAltName=${serverNames}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n`],
    ['client', 'extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n'],
  ] as const) {
    writeFileSync(join(dir, `${who}.ext`), extensions);
    openssl('req', ...newKey, '-keyout', `${who}-key.pem`, '-out', `${who}.csr`, '-subj', who === 'client' ? clientSubject : '/CN=test server');
    openssl('x509', '-req', '-in', `${who}.csr`, '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', String(days),
      '-extfile', `${who}.ext`, '-out', `${who}-cert.pem`);
  }
  if (passphrase !== undefined) {
    openssl('pkcs8', '-topk8', '-in', 'server-key.pem', '-out', 'server-key.enc', '-passout', `pass:${passphrase}`);
    execFileSync('mv', ['server-key.enc', 'server-key.pem'], { cwd: dir });
  }
  return dir;
}

/** A keys.psk in `dir`, for users and their hexadecimal keys. */
export function makePskKeys(dir: string, keys: Readonly<Record<string, string>>): string {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'keys.psk'), Object.entries(keys).map(([user, key]) => `${user}:${key}\n`).join(''), { mode: 0o600 });
  return dir;
}
