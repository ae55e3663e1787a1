import { existsSync } from 'node:fs';
import path from 'node:path';
import { loadTlsPsk, loadTlsX509, openByName, restoreOpened, type BlockGraph, type BlockNode, type NbdListenAddress, type OpenedByName, type OptionTree, type TlsCredentials } from '../../src/index.js';
import { CACHE_CHOICES, FORMAT_CHOICES, TRACING } from '../common-options.mjs';
import { defineCommand, UsageError } from '../command.mjs';
import { refuseLiveSocket } from '../live-socket.mjs';
import { withSnapshot } from '../nbd/image.mjs';
import { cacheOptions, isWritethrough, serveImage } from '../nbd/session.mjs';
import { nbdUri } from '../nbd-uri.mjs';

const DEFAULT_PORT = 10_809;
const DEFAULT_HOST = '127.0.0.1';
const MAX_CLIENTS = 2 ** 31 - 1;

export const command = defineCommand({
  description: 'Serves an image over NBD, and prints the URI to connect to as soon as clients can. It ends when the last client has gone (unless ' +
    '--persistent), or with Ctrl-C or SIGTERM; all that clients have written is in the image then.',
  positionals: { image: { help: 'the image: a file, a device, or an NBD URI to pass on' } },
  options: {
    socket: { type: 'string', alias: 'k', value: 'PATH', help: 'listen on a unix socket' },
    port: { type: 'number', alias: 'p', max: 65_535, help: `listen on this TCP port; 0 takes a free one (default ${DEFAULT_PORT}, without --socket)` },
    bind: { type: 'string', alias: 'b', value: 'ADDRESS', help: `TCP address (default ${DEFAULT_HOST}: this machine only; 0.0.0.0 for all)` },
    'export-name': { type: 'string', alias: 'x', value: 'NAME', default: '', help: 'name of the export; by default the empty name' },
    description: { type: 'string', alias: 'D', value: 'TEXT', help: 'what clients that list the exports are told of it' },
    'read-only': { type: 'boolean', alias: 'r', help: 'clients may not write' },
    snapshot: { type: 'string', alias: 'l', value: 'TAG', help: 'read-only, as of this internal snapshot (name or id)' },
    persistent: { type: 'boolean', alias: 't', help: 'stay when the last client has gone' },
    shared: { type: 'number', alias: 'e', value: 'N', max: MAX_CLIENTS, default: 0, help: 'clients at once; 0 for any number' },
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    cache: { type: 'string', choices: CACHE_CHOICES, default: 'writeback', help: "QEMU's cache mode of the image" },
    bitmap: { type: 'string', alias: 'B', array: true, repeated: true, value: 'NAME', help: 'let clients read this dirty bitmap of the image' },
    'allocation-depth': { type: 'boolean', alias: 'A', help: 'let clients ask which layer of the backing chain holds each range' },
    tls: { type: 'string', value: 'DIR', help: 'TLS only: ca-cert.pem, server-cert.pem and server-key.pem are here, and clients need a certificate of that CA; or keys.psk alone, and clients need one of its keys' },
    'tls-any-client': { type: 'boolean', help: 'with --tls: clients need no certificate' },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce nbd serve disk.qcow2 --socket /run/disk.sock', does: 'to one machine, over a unix socket' },
    { line: 'quiesce nbd serve disk.qcow2 --port 10809 --bind 0.0.0.0 --tls /etc/pki/nbd --persistent', does: 'to others, encrypted, until Ctrl-C' },
    { line: 'quiesce nbd serve disk.qcow2 --snapshot paused --port 0', does: 'an old state of the disk, read-only' },
  ],
  run: async (args, { signal, out, warn }) => {
    const { image, socket, port, bind, snapshot, format, cache, tls } = args;
    if (socket !== undefined && (port !== undefined || bind !== undefined)) throw new UsageError('--socket excludes --port and --bind');
    if (args.tlsAnyClient && tls === undefined) throw new UsageError('--tls-any-client goes with --tls');
    const address: NbdListenAddress = socket === undefined ? { host: bind ?? DEFAULT_HOST, port: port ?? DEFAULT_PORT } : { unix: path.resolve(socket) };
    if ('unix' in address) await refuseLiveSocket(address.unix, 'another server');
    const readOnly = args.readOnly || snapshot !== undefined;
    const open = async (graph: BlockGraph): Promise<BlockNode> => {
      const options = { 'read-only': readOnly, ...cacheOptions(cache), discard: 'unmap' };
      const openWith = (more: OptionTree): Promise<OpenedByName> => openByName(graph, image, format ?? null, { ...options, ...more });
      const { node, guessedRaw } = await openWith({});
      if (guessedRaw !== null && !readOnly) warn(`'${image}' is taken as raw; clients cannot write the header of another format into it (--format raw lets them)`);
      const restored = await restoreOpened(node);
      if (restored !== null) warn(restored);
      return snapshot === undefined ? node : withSnapshot(graph, node, snapshot, openWith);
    };
    await serveImage({
      address, open, maxConnections: args.shared, persistent: args.persistent, stop: signal, onProblem: warn,
      tls: tls === undefined ? null : credentialsIn(tls, args.tlsAnyClient),
      exported: {
        name: args.exportName, description: args.description, writable: !readOnly, writethrough: isWritethrough(cache), bitmaps: args.bitmap,
        allocationDepth: args.allocationDepth,
      },
      ready: (listening) => out.line(nbdUri('unix' in address ? address : { host: bind ?? DEFAULT_HOST, port: listening ?? DEFAULT_PORT }, args.exportName, tls !== undefined)),
    });
  },
});

/** Certificates; or pre-shared keys where these are all that is there. */
function credentialsIn(dir: string, anyClient: boolean): TlsCredentials {
  const hasOnlyKeys = existsSync(path.join(dir, 'keys.psk')) && !existsSync(path.join(dir, 'server-cert.pem'));
  if (!hasOnlyKeys) return loadTlsX509({ endpoint: 'server', dir, verifyPeer: !anyClient });
  if (anyClient) throw new UsageError('--tls-any-client needs certificates: with pre-shared keys every client has one');
  return loadTlsPsk({ endpoint: 'server', dir });
}
