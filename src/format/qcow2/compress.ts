/** Compressed clusters (zlib): raw deflate with a 4 KiB window, followed by whatever fills the last sector. */
import { BlockError } from '../../base/errors.js';
import type { Qcow2Image } from './image.js';
import type { CompressedExtent } from './layout.js';

const WINDOW_BITS = 12;

export async function readCompressedCluster(image: Qcow2Image, extent: CompressedExtent): Promise<Uint8Array> {
  const { clusterSize } = image.geometry;
  if (!Number.isSafeInteger(extent.offset + extent.bytes)) throw image.corrupt('a compressed cluster lies beyond 2^53');
  const packed = new Uint8Array(extent.bytes);
  await image.file.read(extent.offset, packed);
  // loaded here: images without compressed clusters must not pay for it
  const { inflateRaw } = process.getBuiltinModule('node:zlib');
  return new Promise((resolve, reject) => {
    // maxOutputLength bounds memory: damaged data must not inflate to more than the cluster it stands for
    inflateRaw(packed, { windowBits: WINDOW_BITS, maxOutputLength: clusterSize, finishFlush: 2 }, (error, result) => {
      if (error === null && result.byteLength === clusterSize) resolve(result);
      else reject(new BlockError('IO', `'${image.name}' has a compressed cluster at host offset 0x${extent.offset.toString(16)} that does not decompress`,
        { node: image.name, offset: extent.offset, bytes: extent.bytes, errno: 'EIO', cause: error }));
    });
  });
}
