import {
  BASE_ALLOCATION, formatSize, loadTargetTls, NbdClient, nbdServerFacts, parseNbdName, type NbdExportFacts, type NbdExtent, type NbdServerFacts,
} from '../../src/index.js';
import { JSON_OUTPUT } from '../common-options.mjs';
import { defineCommand, UsageError, type CommandContext } from '../command.mjs';
import { joinExtents, transmissionFlags, type MapEntry } from '../nbd-facts.mjs';
import { printable } from '../snapshot-text.mjs';

const MAP_STEP = 1024 ** 3;

export const command = defineCommand({
  description: 'Shows what an NBD server offers: size, flags, block sizes and contexts of an export. Nothing is written, and no data is read.',
  positionals: { uri: { help: 'nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, nbds://… for TLS, or QEMU\'s nbd:… names' } },
  options: {
    list: { type: 'boolean', alias: 'L', help: 'all exports that the server lists, whatever the URI names' },
    map: { type: 'boolean', help: 'which parts of the export hold data: offset, length and type of each' },
    context: { type: 'string', value: 'NAME', help: `with --map: ask for this context (default ${BASE_ALLOCATION}), like qemu:dirty-bitmap:NAME` },
    json: JSON_OUTPUT,
  },
  examples: [
    { line: 'quiesce nbd info nbd://localhost/disk', does: 'one export' },
    { line: 'quiesce nbd info --list --json nbd://localhost', does: 'all exports, for programs' },
    { line: "quiesce nbd info --map 'nbd+unix:///disk?socket=/run/nbd.sock'", does: 'where its data is' },
  ],
  run: async ({ uri, list, map, context, json }, { out, signal }) => {
    if (list && map) throw new UsageError('--list and --map exclude each other');
    if (context !== undefined && !map) throw new UsageError('--context goes with --map');
    const { address, exportName, tls } = parseNbdName(uri);
    const where = { address, tls: loadTargetTls(tls), signal };
    if (map) {
      const entries = await readMap(await NbdClient.open({ ...where, exportName, contexts: [context ?? BASE_ALLOCATION] }), context ?? BASE_ALLOCATION, signal);
      return json ? out.json(entries) : printMap(entries, out);
    }
    const facts = await nbdServerFacts(list ? where : { ...where, exportName });
    const failed = list ? undefined : facts.exports[0]?.error;
    if (failed !== undefined && failed !== null) throw failed;
    if (json) out.json(jsonOf(facts));
    else print(facts, out);
  },
});

async function readMap(client: NbdClient, context: string, signal: AbortSignal): Promise<MapEntry[]> {
  try {
    const extents: NbdExtent[] = [];
    for (let at = 0; at < client.size;) {
      signal.throwIfAborted();
      for (const extent of await client.blockStatus(at, Math.min(MAP_STEP, client.size - at), context)) {
        extents.push(extent);
        at += extent.bytes;
      }
    }
    return joinExtents(extents, client.size, context);
  } finally {
    await client.close();
  }
}

function printMap(entries: readonly MapEntry[], out: CommandContext['out']): void {
  for (const { offset, length, type, description } of entries) {
    out.line(`${String(offset).padStart(10)}  ${String(length).padStart(10)}  ${String(type).padStart(3)}  ${description}`.trimEnd());
  }
}

function jsonOf({ protocol, tls, structuredReplies, exports }: NbdServerFacts): unknown {
  return {
    protocol, tls, 'structured-replies': structuredReplies,
    exports: exports.map(({ name, description, info, error, contexts }) => ({
      'export-name': name,
      ...description === null ? {} : { description },
      ...info === null ? {} : {
        'export-size': info.size,
        flags: transmissionFlags(info.flags),
        'block-size-minimum': info.minimumBlock, 'block-size-preferred': info.preferredBlock, 'block-size-maximum': info.maximumBlock,
      },
      contexts,
      ...error === null ? {} : { error: error.message },
    })),
  };
}

function print({ protocol, tls, structuredReplies, exports }: NbdServerFacts, out: CommandContext['out']): void {
  out.line(`protocol: ${protocol} ${tls ? 'with' : 'without'} TLS, ${structuredReplies ? 'structured' : 'simple'} replies`);
  for (const one of exports) printExport(one, out);
}

function printExport({ name, description, info, error, contexts }: NbdExportFacts, out: CommandContext['out']): void {
  out.line(`export: "${printable(name)}"`);
  if (description !== null && description !== '') out.line(`  description: ${printable(description)}`);
  if (error !== null) out.line(`  not available: ${printable(error.message)}`);
  if (info !== null) {
    out.line(`  size: ${formatSize(info.size)} (${info.size} bytes)`);
    out.line(`  flags: ${transmissionFlags(info.flags).join(', ')}`);
    if (info.minimumBlock > 0) out.line(`  block sizes: minimum ${info.minimumBlock}, preferred ${info.preferredBlock}, maximum ${info.maximumBlock}`);
  }
  if (contexts.length > 0) out.line(`  contexts: ${contexts.map(printable).join(', ')}`);
}
