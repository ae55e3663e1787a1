/** The file of a new overlay: which are refused, in QEMU's order and words, and what it prints of those that it makes. */
import { BlockError, errnoOf, errnoText } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import { findDriver } from '../image/drivers.js';
import { nodeFilename } from '../image/filename.js';
import { protocolOptions } from '../image/image-name.js';
import { createImage } from '../image/open.js';

/** Formats that can be made, but not over another image. */
const WITHOUT_BACKING: readonly string[] = ['raw', 'file', 'host_device', 'nbd'];
const FILES: readonly unknown[] = ['file', 'host_device'];

/** `print` hears the line that announces the new image. */
export async function makeOverlayFile(below: BlockNode, filename: string, format: string, print: (line: string) => void): Promise<void> {
  if (findDriver(format) === undefined) throw invalid(`Unknown file format '${format}'`);
  const protocol = await protocolOptions(filename);
  if (WITHOUT_BACKING.includes(format)) throw invalid(`Backing file not supported for file format '${format}'`);
  if (format !== 'qcow2') throw invalid(`Format driver '${format}' does not support image creation`);
  const backingFile = nodeFilename(below);
  const backingFormat = below.driver.formatName;
  if (backingFile === filename) throw invalid('Error: Trying to create an image with the same filename as the backing file');
  const size = below.length();
  print(`Formatting '${filename}', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=${size} ` +
    `backing_file=${backingFile.replaceAll(',', ',,')} backing_fmt=${backingFormat} lazy_refcounts=off refcount_bits=16`);
  const path = protocol.get('filename');
  if (!FILES.includes(protocol.get('driver')) || typeof path !== 'string') {
    throw new BlockError('NOT_SUPPORTED', `Protocol driver '${String(protocol.get('driver'))}' does not support image creation`);
  }
  await createImage(path, { format, size, backingFile, backingFormat, backing: 'allow', backingUnchecked: true })
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
