import { BlockError, createImage, formatSize, parseSize, type CreateImageOptions, type Preallocation } from '../../src/index.js';
import { BACKING, FORMAT_CHOICES, TRACING } from '../common-options.mjs';
import { defineCommand, UsageError } from '../command.mjs';

/** `-o` options of qemu-img that this engine has. */
const CREATE_OPTIONS = ['compat', 'cluster_size', 'refcount_bits', 'lazy_refcounts', 'preallocation', 'backing_file', 'backing_fmt', 'size'];

export const command = defineCommand({
  description: 'Makes a new, empty disk image. An existing file is replaced, unless another process holds its image lock.',
  positionals: {
    file: { help: 'the image to make' },
    size: { type: 'size', optional: true, help: 'virtual size, like 10G; may be left out with a backing file' },
  },
  options: {
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, default: 'qcow2', help: 'image format' },
    options: { type: 'string', alias: 'o', array: true, repeated: true, value: 'NAME=VALUE,...', help: `format options: ${CREATE_OPTIONS.join(', ')}` },
    'backing-file': { type: 'string', alias: 'b', value: 'FILE', help: 'make an overlay over this image' },
    'backing-format': { type: 'string', alias: 'F', choices: FORMAT_CHOICES, help: 'format of the backing file' },
    unchecked: { type: 'boolean', alias: 'u', help: 'record the backing file without opening it' },
    backing: BACKING,
    quiet: { type: 'boolean', alias: 'q', help: 'print nothing' },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce image create disk.qcow2 10G', does: 'an empty qcow2 image' },
    { line: 'quiesce image create -f qcow2 -b base.qcow2 -F qcow2 work.qcow2', does: 'an overlay: writes go to work.qcow2, base.qcow2 stays as it is' },
    { line: 'quiesce image create -f qcow2 disk.qcow2 10G -o cluster_size=1M,lazy_refcounts=on', does: 'with format options' },
  ],
  usageExitCode: 1,
  run: async ({ file, size, format, options, backingFile, backingFormat, unchecked, backing, quiet }, { out }) => {
    try {
      const create = fromOptions(format, options);
      const merged: CreateImageOptions = {
        ...create,
        size: size ?? create.size,
        backingFile: backingFile ?? create.backingFile,
        backingFormat: backingFormat ?? create.backingFormat,
        backingUnchecked: unchecked,
        backing,
      };
      if (merged.backingFile !== undefined && merged.backingFormat === undefined && !unchecked) {
        throw new UsageError('a backing file needs its format: add -F qcow2 or -F raw');
      }
      const made = await createImage(file, merged);
      if (!quiet) out.line(`Formatting '${file}', fmt=${format} size=${made.size} (${formatSize(made.size)})`);
    } catch (error) {
      throw naming(file, error);
    }
  },
});

/** What is wrong with a size or an option is known before the file is touched, and says nothing of the file. */
function naming(file: string, error: unknown): unknown {
  if (!(error instanceof BlockError) || error.message.includes(`'${file}'`)) return error;
  return new BlockError(error.code, `${file}: ${error.message}`, { errno: error.errno, cause: error });
}

function fromOptions(format: CreateImageOptions['format'], texts: readonly string[]): CreateImageOptions {
  const values = new Map<string, string>();
  for (const pair of texts.flatMap((text) => text.split(','))) {
    const [name = '', value] = [pair.split('=', 1)[0], pair.includes('=') ? pair.slice(pair.indexOf('=') + 1) : undefined];
    if (!CREATE_OPTIONS.includes(name)) throw new UsageError(`-o: unknown option '${name}', expected one of ${CREATE_OPTIONS.join(', ')}`);
    if (value === undefined || value === '') throw new UsageError(`-o: option '${name}' needs a value`);
    values.set(name, value);
  }
  const size = (name: string): number | undefined => (values.has(name) ? parseSize(values.get(name)!, name) : undefined);
  const preallocation = preallocationMode(values.get('preallocation'));
  return {
    format,
    version: compat(values.get('compat')),
    clusterSize: size('cluster_size'),
    refcountBits: size('refcount_bits'),
    lazyRefcounts: onOff('lazy_refcounts', values.get('lazy_refcounts')),
    preallocation,
    size: size('size'),
    backingFile: values.get('backing_file'),
    backingFormat: values.get('backing_fmt'),
  };
}

function preallocationMode(text: string | undefined): Preallocation | undefined {
  if (text === undefined || text === 'off' || text === 'metadata' || text === 'falloc' || text === 'full') return text;
  throw new BlockError('INVALID_ARGUMENT', `preallocation: expected off, metadata, falloc or full, got '${text}'`);
}

function compat(text: string | undefined): 2 | 3 | undefined {
  if (text === undefined) return undefined;
  if (text === '0.10' || text === 'v2') return 2;
  if (text === '1.1' || text === 'v3') return 3;
  throw new BlockError('INVALID_ARGUMENT', `compat: expected 0.10 or 1.1, got '${text}'`);
}

function onOff(name: string, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (text === 'on' || text === 'true' || text === 'yes') return true;
  if (text === 'off' || text === 'false' || text === 'no') return false;
  throw new BlockError('INVALID_ARGUMENT', `${name}: expected on or off, got '${text}'`);
}
