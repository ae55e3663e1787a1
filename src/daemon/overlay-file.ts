/** The file of a new image: which are refused, in QEMU's order and words, and what it prints of those that it makes. */
import { BlockError, errnoOf, errnoText } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import { findDriver } from '../image/drivers.js';
import { nodeFilename } from '../image/filename.js';
import { protocolOptions } from '../image/image-name.js';
import { createImage } from '../image/open.js';

/** Formats that can be made, but not over another image. */
const WITHOUT_BACKING: readonly string[] = ['raw', 'file', 'host_device', 'nbd'];
/** Formats that QEMU knows and this engine does not. */
const OTHER_FORMATS: readonly string[] = ['bochs', 'cloop', 'dmg', 'luks', 'parallels', 'qcow', 'qed', 'vdi', 'vhdx', 'vmdk', 'vpc', 'vvfat'];
const FILES: readonly unknown[] = ['file', 'host_device'];

export interface NewImage {
  readonly filename: string;
  readonly format: string;
  readonly size: number;
  /** What it is to lie on, if anything. */
  readonly backing: BlockNode | null;
}

/** `print` hears the line that announces the new image. */
export function makeOverlayFile(below: BlockNode, filename: string, format: string, print: (line: string) => void): Promise<void> {
  return makeImageFile({ filename, format, size: below.length(), backing: below }, print);
}

export async function makeImageFile({ filename, format, size, backing }: NewImage, print: (line: string) => void): Promise<void> {
  if (findDriver(format) === undefined && !OTHER_FORMATS.includes(format)) throw invalid(`Unknown file format '${format}'`);
  const protocol = await protocolOptions(filename);
  if (backing !== null && WITHOUT_BACKING.includes(format)) throw invalid(`Backing file not supported for file format '${format}'`);
  if (format !== 'qcow2' && format !== 'raw' && format !== 'file') throw invalid(`Format driver '${format}' does not support image creation`);
  const below = backing === null ? {} : { backingFile: nodeFilename(backing), backingFormat: backing.driver.formatName };
  if (below.backingFile === filename) throw invalid('Error: Trying to create an image with the same filename as the backing file');
  const named = below.backingFile === undefined ? '' : `backing_file=${below.backingFile.replaceAll(',', ',,')} backing_fmt=${below.backingFormat} `;
  const qcow2 = `fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=${size} ${named}lazy_refcounts=off refcount_bits=16`;
  print(`Formatting '${filename}', ${format === 'qcow2' ? qcow2 : `fmt=${format} size=${size}`}`);
  const path = protocol.get('filename');
  if (!FILES.includes(protocol.get('driver')) || typeof path !== 'string') {
    throw new BlockError('NOT_SUPPORTED', `Protocol driver '${String(protocol.get('driver'))}' does not support image creation`);
  }
  await createImage(path, { format: format === 'qcow2' ? 'qcow2' : 'raw', size, ...below, backing: 'allow', backingUnchecked: true })
    .catch((error: unknown) => { throw couldNotCreate(path, error); });
}

/** What kept a file from being made, as QEMU puts it; errors that no host call made stay as they are. */
export function couldNotCreate(filename: string, error: unknown): unknown {
  const errno = errnoOf(error);
  const lock = error instanceof BlockError && error.code === 'LOCKED' ? /Failed to get [^(]* lock/.exec(error.message) : null;
  if (lock !== null) return new BlockError('LOCKED', lock[0], { errno, cause: error });
  return errno === undefined ? error : new BlockError('IO', `Could not create '${filename}': ${errnoText(errno)}`, { errno, cause: error });
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
