import { BlockError, openImage, parseSize, resizeNode, type Preallocation } from '../../src/index.js';
import { BACKING, FORMAT_CHOICES, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';

const MODES: readonly Preallocation[] = ['off', 'metadata', 'falloc', 'full'];

export const command = defineCommand({
  description: 'Gives the disk of an image another size. What a smaller disk loses is gone, so that needs --shrink; what a larger one gains reads as zeros.',
  positionals: {
    file: { help: 'the image' },
    size: { help: 'the new size, like 10G; +1G makes it larger by that much, -1G (behind --) smaller' },
  },
  options: {
    shrink: { type: 'boolean', help: 'let the disk become smaller: what is beyond its new end is lost' },
    preallocation: { type: 'string', value: 'MODE', help: `how much of the new space is there from the start: ${MODES.join(', ')}` },
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    backing: BACKING,
    quiet: { type: 'boolean', alias: 'q', help: 'print nothing' },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce image resize disk.qcow2 +10G', does: 'ten gigabytes more' },
    { line: 'quiesce image resize --shrink disk.qcow2 20G', does: 'a smaller disk; make its file systems smaller first' },
  ],
  usageExitCode: 1,
  run: async ({ file, size, shrink, preallocation, format, backing, quiet }, { out, warn }) => {
    const mode = modeOf(preallocation);
    const change = parseChange(size);
    const node = await openImage(file, { format, backing });
    try {
      const old = node.length();
      const bytes = change.sign === 0 ? change.bytes : old + change.sign * change.bytes;
      if (bytes <= 0) throw new BlockError('INVALID_ARGUMENT', 'New image size must be positive');
      if (bytes <= old && mode !== 'off') throw new BlockError('INVALID_ARGUMENT', 'Preallocation can only be used for growing images');
      if (bytes < old && !shrink) {
        warn("Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.");
        throw new BlockError('INVALID_ARGUMENT', 'Use the --shrink option to perform a shrink operation.');
      }
      await resizeNode(node, bytes, mode);
    } finally {
      await node.close();
    }
    if (!quiet) out.line('Image resized.');
  },
});

function modeOf(text: string | undefined): Preallocation {
  const mode = MODES.find((known) => known === (text ?? 'off'));
  if (mode === undefined) throw new BlockError('INVALID_ARGUMENT', `Invalid preallocation mode '${text}'`);
  return mode;
}

/** `sign` 0: an absolute size. */
function parseChange(text: string): { readonly sign: -1 | 0 | 1; readonly bytes: number } {
  const sign = text.startsWith('+') ? 1 : text.startsWith('-') ? -1 : 0;
  return { sign, bytes: parseSize(sign === 0 ? text : text.slice(1), 'size') };
}
