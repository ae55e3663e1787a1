/** QMP: exports and the NBD server. */
import { BlockError } from '../base/errors.js';
import { tryListening, type NbdListenAddress } from '../nbd/listen.js';
import type { TlsCredentials } from '../nbd/tls.js';
import type { CommandTable } from '../qmp/server.js';
import type { JsonDict } from '../qobject/value.js';
import { listenAddress, receivedSocketAddress, type SocketAddress } from './address.js';
import { refuseOtherType } from './export-types.js';
import type { StorageDaemon } from './daemon.js';
import type { ExportBitmapName } from './exports.js';

export function exportCommands(daemon: StorageDaemon): CommandTable {
  const { exports } = daemon;
  return {
    'nbd-server-start': (args) => startNbdServer(daemon, args, receivedSocketAddress(args['addr'] as JsonDict)),
    'nbd-server-stop': () => exports.stopServer(),
    'nbd-server-add': (args) => addByDevice(daemon, args),
    // what it calls a name is the id: those of `nbd-server-add` are the same
    'nbd-server-remove': ({ name, mode }) => exports.remove(name as string, removeMode(mode)),
    'block-export-add': (args) => addExport(daemon, args),
    'block-export-del': ({ id, mode }) => exports.remove(id as string, removeMode(mode)),
    'query-block-exports': () => exports.list().map(({ id, nodeName, shuttingDown }) => ({
      id, type: 'nbd', 'node-name': nodeName, 'shutting-down': shuttingDown,
    })),
  };
}

function removeMode(mode: unknown): 'safe' | 'hard' {
  return mode === 'hard' ? 'hard' : 'safe';
}

/** `options`: NbdServerOptions, checked by the schema. */
export async function startNbdServer(daemon: StorageDaemon, options: JsonDict, address: SocketAddress): Promise<void> {
  if (daemon.exports.serving) throw new BlockError('EXISTS', 'NBD server already running');
  const authz = options['tls-authz'] as string | undefined;
  const where = listenAddress(address);
  await daemon.exports.startServer({
    address: where,
    tls: await credentialsFor(daemon, options, where),
    // asked for each client: the object may come later, and who names one that is not there keeps everybody out
    authorize: authz === undefined ? null : (subject) => daemon.objects.authorizes(authz, subject) ?? false,
    maxConnections: Number(options['max-connections'] ?? 0),
  });
}

/** Credentials that are no good are told only where the address is. */
async function credentialsFor(daemon: StorageDaemon, options: JsonDict, address: NbdListenAddress): Promise<TlsCredentials | null> {
  try {
    return serverCredentials(daemon, options);
  } catch (error) {
    await tryListening(address);
    throw error;
  }
}

function serverCredentials({ objects }: StorageDaemon, options: JsonDict): TlsCredentials | null {
  const id = options['tls-creds'] as string | undefined;
  if (id === undefined) return null;
  const type = objects.typeOf(id);
  if (type === undefined) throw new BlockError('NOT_FOUND', `No TLS credentials with id '${id}'`);
  const credentials = objects.tlsCredentials(id);
  if (credentials === undefined) throw new BlockError('INVALID_ARGUMENT', `Object with id '${id}' is not TLS credentials`);
  if (credentials.endpoint !== 'server') throw new BlockError('INVALID_ARGUMENT', 'Expecting TLS credentials with a server endpoint');
  return credentials;
}

/** `options`: BlockExportOptions, checked by the schema. */
export async function addExport(daemon: StorageDaemon, options: JsonDict): Promise<void> {
  const iothread = options['iothread'] as string | undefined;
  if (options['type'] !== 'nbd') daemon.exports.checked({ id: options['id'] as string, nodeName: options['node-name'] as string, writable: options['writable'] as boolean | undefined });
  // threads of QEMU's kind are not needed here: any that exists will do
  if (iothread !== undefined && !daemon.hasIothread(iothread)) throw new BlockError('NOT_FOUND', `iothread "${iothread}" not found`);
  if (options['type'] !== 'nbd') await refuseOtherType(options, (line) => daemon.say('errors', line));
  await daemon.exports.add({
    id: (options['id'] as string),
    nodeName: (options['node-name'] as string),
    name: options['name'] as string | undefined,
    description: options['description'] as string | undefined,
    writable: options['writable'] as boolean | undefined,
    writethrough: options['writethrough'] as boolean | undefined,
    bitmaps: options['bitmaps'] as readonly ExportBitmapName[] | undefined,
    allocationDepth: options['allocation-depth'] as boolean | undefined,
  });
}

/** The command of old: the device's name is the export's, and its id too. A read-only device is exported read-only. */
async function addByDevice(daemon: StorageDaemon, { device, name, description, writable, bitmap }: JsonDict): Promise<void> {
  const node = daemon.graph.lookUp(device as string);
  const id = (name ?? device) as string;
  await daemon.exports.add({
    id, name: id, nodeName: node.nodeName, description: description as string | undefined,
    writable: writable === true && !node.readOnly, bitmaps: bitmap === undefined ? [] : [bitmap as string],
  });
}
