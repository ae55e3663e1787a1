import { BlockError } from '../base/errors.js';
import { inQemusWords } from '../nbd/handshake-client.js';
import { portNumber } from '../nbd/name.js';
import { DEFAULT_PORT, MAX_STRING } from '../nbd/protocol.js';
import { loadTargetTls, parseNbdName, type NbdTarget } from '../nbd/uri.js';
import { exportUri, NbdDriver, openNbdDriver, type NbdDriverOptions } from '../protocol/nbd.js';
import type { DriverContext, DriverDefinition, OpenedDriver, ReopenContext, ReopenedDriver } from './drivers.js';
import { invalid, type NodeOptionsReader } from './options.js';

/** BlockdevOptionsNbd: an export of a server, with QEMU's older spellings (host, port, path, filename) too. */
export const NBD_DRIVER: DriverDefinition = { name: 'nbd', protocol: true, open: openNbd, reopen: reopenNbd };

/** Options that tell which export it is, as QEMU counts them. */
const STRONG = /^(path|host|port|export|tls-creds|tls-hostname|server\..*)$/;

type Address = NbdDriverOptions['address'];
type Tls = NbdDriverOptions['tls'];

async function openNbd(context: DriverContext): Promise<OpenedDriver> {
  const { options, common } = context;
  const filename = options.string('filename');
  const target = filename === undefined ? null : parseNbdName(filename);
  const strong = { ...optionsOf(target), ...Object.fromEntries([...options.flat].filter(([name]) => STRONG.test(name))) };
  const address = readAddress(options, target?.address);
  const told = options.string('export') ?? (target?.exportName || undefined);
  const exportName = told ?? '';
  if (Buffer.byteLength(exportName) > MAX_STRING) throw invalid('export name too long to send to server');
  const tls = readTls(context, address) ?? loadTargetTls(target?.tls ?? null);
  const shared = {
    address, exportName, tls, dirtyBitmap: options.string('x-dirty-bitmap'),
    reconnectDelayMs: seconds(options, 'reconnect-delay'), openTimeoutMs: seconds(options, 'open-timeout'),
    signal: context.signal,
  };
  const driver = await openNbdDriver({ ...shared, readOnly: true }).catch((error: unknown) => { throw inQemusWords(error); });
  const name = exportUri(address, told);
  return { driver, name, origin: { plainName: name, strong }, readOnly: await readOnlyOf(driver, common) };
}

function reopenNbd({ node, common }: ReopenContext): ReopenedDriver {
  const { driver } = node;
  if (!common.readOnly && !common.autoReadOnly && driver instanceof NbdDriver && driver.client.readOnly) {
    throw new BlockError('READ_ONLY', "Can't reopen read-only NBD mount as read/write", { node: node.name, errno: 'EACCES' });
  }
  return {};
}

/** The options that a name stands for. */
function optionsOf(target: NbdTarget | null): Readonly<Record<string, string>> {
  if (target === null) return {};
  const { address, exportName } = target;
  return {
    ...(address.type === 'unix' ? { 'server.path': address.path } : { 'server.host': address.host, 'server.port': String(address.port) }),
    'server.type': address.type,
    ...(exportName === '' ? {} : { export: exportName }),
  };
}

/** A read-only export serves a node that may be read-only; any other one is refused. */
async function readOnlyOf(driver: NbdDriver, { readOnly, autoReadOnly }: DriverContext['common']): Promise<boolean> {
  if (readOnly || !driver.client.readOnly) return readOnly;
  if (autoReadOnly) return true;
  await driver.close();
  throw new BlockError('READ_ONLY', 'NBD export is read-only', { node: driver.client.name, errno: 'EACCES' });
}

function readAddress(options: NodeOptionsReader, fromName: Address | undefined): Address {
  const path = options.string('path');
  const host = options.string('host');
  const port = options.string('port');
  const type = options.string('server.type');
  if (path !== undefined && host !== undefined) throw invalid('path and host may not be used at the same time');
  if (type !== undefined && (path ?? host ?? port) !== undefined) throw invalid("Cannot use 'server' and path/host/port at the same time");
  if (path !== undefined && port !== undefined) throw invalid('port may not be used without host');
  if (path !== undefined) return { type: 'unix', path };
  if (host !== undefined) return inet(host, port);
  if (port !== undefined) throw invalid('port may not be used without host');
  if (type === undefined && fromName !== undefined) return fromName;
  return readServer(options, type);
}

function readServer(options: NodeOptionsReader, type: string | undefined): Address {
  if (type === undefined) throw invalid('NBD server address missing');
  const needed = (name: string): string => {
    const value = options.string(`server.${name}`);
    if (value === undefined) throw invalid(`Parameter 'server.${name}' is missing`);
    return value;
  };
  if (type === 'unix') {
    const path = needed('path');
    const [tight, abstract] = [options.bool('server.tight', true), options.bool('server.abstract', false)];
    if (abstract && tight) throw new BlockError('NOT_SUPPORTED', 'abstract unix sockets are not available, but for those with tight=off');
    return { type: 'unix', path: abstract ? `\0${path}` : path };
  }
  if (type === 'inet') {
    const [host, port] = [needed('host'), needed('port')];
    // how to listen, which family to prefer: a client's host name tells
    for (const name of ['numeric', 'keep-alive', 'mptcp', 'ipv4', 'ipv6'] as const) options.bool(`server.${name}`);
    options.number('server.to');
    return inet(host, port);
  }
  if (type === 'fd') {
    needed('str');
    throw new BlockError('NOT_SUPPORTED', 'only QEMU supports file descriptor passing');
  }
  if (type === 'vsock') {
    for (const [name, value] of [['cid', needed('cid')], ['port', needed('port')]] as const) {
      if (!/^\d+$/.test(value)) throw invalid(`Failed to parse ${name} '${value}'`);
    }
    throw new BlockError('NOT_SUPPORTED', 'socket family AF_VSOCK unsupported');
  }
  throw invalid(`Parameter 'server.type' does not accept value '${type}'`);
}

function inet(host: string, port = String(DEFAULT_PORT)): Address {
  return { type: 'inet', host, port: portNumber({ host, port }) };
}

function readTls({ options, tlsCredentials }: DriverContext, address: Address): Tls {
  const id = options.string('tls-creds');
  const hostname = options.string('tls-hostname') ?? (address.type === 'inet' ? address.host : null);
  if (id === undefined) return null;
  const credentials = tlsCredentials?.(id);
  if (credentials === undefined) throw invalid(`No TLS credentials with id '${id}'`);
  if (credentials.endpoint !== 'client') throw invalid('Expecting TLS credentials with a client endpoint');
  return { credentials, hostname };
}

function seconds(options: NodeOptionsReader, name: string): number {
  const value = options.number(name) ?? 0;
  if (value < 0 || value > 0xffff_ffff) throw invalid(`Parameter '${name}' expects a number of seconds below 2^32`);
  // the longest timer there is
  return Math.min(value * 1000, 0x7fff_ffff);
}
