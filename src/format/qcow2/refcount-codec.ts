/** Entries of a refcount block: 2^order bits each, big-endian, sub-byte widths from the least significant bit. */
import { TWO_32 } from '../../base/bytes.js';

export interface RefcountCodec {
  get(view: DataView, index: number): number;
  set(view: DataView, index: number, value: number): void;
}

function subByte(bits: 1 | 2 | 4): RefcountCodec {
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  return {
    get: (view, index) => (view.getUint8(Math.floor(index / perByte)) >>> ((index % perByte) * bits)) & mask,
    set: (view, index, value) => {
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(mask << shift)) | (value << shift));
    },
  };
}

const CODECS: Readonly<Record<number, RefcountCodec>> = {
  1: subByte(1),
  2: subByte(2),
  4: subByte(4),
  8: { get: (view, index) => view.getUint8(index), set: (view, index, value) => view.setUint8(index, value) },
  16: { get: (view, index) => view.getUint16(index * 2), set: (view, index, value) => view.setUint16(index * 2, value) },
  32: { get: (view, index) => view.getUint32(index * 4), set: (view, index, value) => view.setUint32(index * 4, value) },
  64: {
    // A count beyond 2^53 can only be damage; it is read as "very many", which forbids writing in place
    get: (view, index) => Math.min(view.getUint32(index * 8) * TWO_32 + view.getUint32(index * 8 + 4), Number.MAX_SAFE_INTEGER),
    set: (view, index, value) => {
      view.setUint32(index * 8, Math.floor(value / TWO_32));
      view.setUint32(index * 8 + 4, value % TWO_32);
    },
  },
};

export function refcountCodec(bits: number): RefcountCodec {
  return CODECS[bits]!;
}
