import { formatSize, imageInfo, openImage, type BlockNode, type ImageInfo, type InfoValue, type SnapshotInfo } from '../../src/index.js';
import { BACKING, FORMAT_CHOICES, JSON_OUTPUT, SHARE, TRACING } from '../common-options.mjs';
import { defineCommand, type CommandContext } from '../command.mjs';
import { formatTable } from '../output.mjs';
import { printable, SNAPSHOT_COLUMNS } from '../snapshot-text.mjs';

interface Described {
  readonly info: ImageInfo;
  readonly snapshots: readonly SnapshotInfo[];
}

export const command = defineCommand({
  description: 'Shows what an image is: format, sizes, backing file, snapshots.',
  positionals: { file: { help: 'the image' } },
  options: {
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    'backing-chain': { type: 'boolean', help: 'show the backing files too' },
    'force-share': SHARE,
    backing: BACKING,
    json: JSON_OUTPUT,
    output: { type: 'string', choices: ['human', 'json'], default: 'human', help: "qemu-img's way to ask for JSON" },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce image info disk.qcow2', does: 'for people' },
    { line: 'quiesce image info -U --json disk.qcow2', does: 'for programs, while a machine runs on the image' },
  ],
  usageExitCode: 1,
  run: async ({ file, format, backingChain, forceShare, backing, json, output }, { out }) => {
    const node = await openImage(file, { readOnly: true, format, forceShare, backing, noBacking: !backingChain });
    try {
      const chain: Described[] = [];
      let name = file;
      for (let layer: BlockNode | null = node; layer !== null; layer = layer.backing) {
        const info = await imageInfo(layer, name);
        chain.push({ info, snapshots: layer.driver.snapshots?.list() ?? [] });
        name = info['full-backing-filename'] ?? '';
      }
      if (json || output === 'json') out.json(backingChain ? chain.map(({ info }) => info) : chain[0]!.info);
      else print(chain, out);
    } finally {
      await node.close();
    }
  },
});

function print(chain: readonly Described[], out: CommandContext['out']): void {
  chain.forEach(({ info, snapshots }, index) => {
    if (index > 0) out.line();
    out.line(`image: ${info.filename}`);
    out.line(`file format: ${info.format}`);
    out.line(`virtual size: ${formatSize(info['virtual-size'])} (${info['virtual-size']} bytes)`);
    out.line(`disk size: ${info['actual-size'] === undefined ? 'unavailable' : formatSize(info['actual-size'])}`);
    if (info['dirty-flag']) out.line('cleanly shut down: no');
    if (info['cluster-size'] !== undefined) out.line(`cluster_size: ${info['cluster-size']}`);
    printBacking(info, out);
    if (snapshots.length > 0) {
      out.line('Snapshot list:');
      out.line(formatTable(snapshots, SNAPSHOT_COLUMNS).trimEnd());
    }
    const specific = info['format-specific'];
    if (specific === undefined) return;
    out.line('Format specific information:');
    printFields(Object.entries(specific.data).map(([name, value]) => [name.replaceAll('-', ' '), value]), 4, out);
  });
}

/** As qemu-img prints a nested value: lists by index, all below a line of their name. */
function printFields(fields: readonly (readonly [name: string, value: InfoValue])[], indent: number, out: CommandContext['out']): void {
  for (const [name, value] of fields) {
    const nested = Array.isArray(value) || typeof value === 'object';
    out.line(`${' '.repeat(indent)}${name}:${nested ? '' : ` ${printable(String(value))}`}`);
    if (!nested) continue;
    const below = value as Readonly<Record<string, InfoValue>> | readonly InfoValue[];
    printFields(Object.entries(below).map(([key, inner]) => [Array.isArray(below) ? `[${key}]` : key.replaceAll('-', ' '), inner]), indent + 4, out);
  }
}

function printBacking(info: ImageInfo, out: CommandContext['out']): void {
  const name = info['backing-filename'];
  if (name === undefined) return;
  const full = info['full-backing-filename'];
  out.line(`backing file: ${printable(name)}${full === undefined || full === name ? '' : ` (actual path: ${printable(full)})`}`);
  if (info['backing-filename-format'] !== undefined) out.line(`backing file format: ${printable(info['backing-filename-format'])}`);
}
