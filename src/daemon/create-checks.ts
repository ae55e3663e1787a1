/** What QEMU refuses of the options of a new qcow2 image, in its order and words; and what this engine does not have. */
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import { ENTRY_BYTES, MAX_L1_BYTES } from '../format/qcow2/layout.js';
import type { JsonDict } from '../qobject/value.js';

const MIN_EXTENDED_CLUSTER = 16_384;

/** `options`: BlockdevCreateOptionsQcow2, checked by the schema. Throws before anything has been written. */
export function checkQcow2Create(options: JsonDict): void {
  const refused = whyRefused(options);
  if (refused !== null) throw new BlockError('INVALID_ARGUMENT', refused);
  for (const absent of ['data-file', 'encrypt', 'extended-l2']) {
    if (options[absent] !== undefined && options[absent] !== false) throw new BlockError('NOT_SUPPORTED', `'${absent}' is not available for new images`);
  }
  if (options['compression-type'] === 'zstd') throw new BlockError('NOT_SUPPORTED', "'compression-type' zstd is not available for new images");
}

/** QEMU finds this out when it gives the new image its size. */
export function checkQcow2Size(options: JsonDict): void {
  const cluster = Number(options['cluster-size'] ?? 65_536);
  const mostEntries = MAX_L1_BYTES / ENTRY_BYTES;
  if (Number(options['size']) > mostEntries * (cluster / ENTRY_BYTES) * cluster) {
    throw new BlockError('INVALID_ARGUMENT', 'Could not resize image: Failed to grow the L1 table: File too large');
  }
}

function whyRefused(options: JsonDict): string | null {
  const old = options['version'] === 'v2';
  const extended = options['extended-l2'] === true;
  const { 'backing-file': backing, preallocation = 'off', size } = options;
  const cluster = Number(options['cluster-size'] ?? 65_536);
  const newer = 'supported with compatibility level 1.1 and above (use version=v3 or greater)';
  if (BigInt(size as number | bigint) % 512n !== 0n) return 'Image size must be a multiple of 512 bytes';
  if (!isPowerOfTwo(cluster) || cluster < 512 || cluster > 2 ** 21) return 'Cluster size must be a power of two between 512 and 2048k';
  if (extended && cluster < MIN_EXTENDED_CLUSTER) return `Extended L2 entries are only supported with cluster sizes of at least ${MIN_EXTENDED_CLUSTER} bytes`;
  if (backing !== undefined && preallocation !== 'off' && !extended) return 'Backing file and preallocation can only be used at the same time if extended_l2 is on';
  if (options['backing-fmt'] !== undefined && backing === undefined) return 'Backing format cannot be used without backing file';
  if (extended && old) return `Extended L2 entries are only ${newer}`;
  if (options['lazy-refcounts'] === true && old) return `Lazy refcounts only ${newer}`;
  return whyRefcountsRefused(Number(options['refcount-bits'] ?? 16), old) ?? whyDataRefused(options, old, newer);
}

function whyRefcountsRefused(bits: number, old: boolean): string | null {
  if (!isPowerOfTwo(bits) || bits > 64) return 'Refcount width must be a power of two and may not exceed 64 bits';
  return old && bits !== 16 ? 'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)' : null;
}

function whyDataRefused(options: JsonDict, old: boolean, newer: string): string | null {
  const raw = options['data-file-raw'] === true;
  const dataFile = options['data-file'] !== undefined;
  if (raw && !dataFile) return 'data-file-raw requires data-file';
  if (raw && options['backing-file'] !== undefined) return 'Backing file and data-file-raw cannot be used at the same time';
  if (dataFile && old) return `External data files are only ${newer}`;
  return options['compression-type'] === 'zstd' && old ? `Non-zlib compression type is only ${newer}` : null;
}
