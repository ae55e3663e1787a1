/** Bytes that a server sends while a connection is negotiated (doc/proto.md, "Handshake phase"). */
import { INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, HandshakeFlag, Info, Option, OptionReply, u16, u32 } from './protocol.js';
import type { BlockSizes, ServedExport } from './export.js';
import { setU64, viewOf } from '../base/bytes.js';

/** What an EXPORT_NAME reply carries after size and flags, unless the client asked to leave it out. */
const PADDING = 124;

export function greeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(INIT_MAGIC, 0);
  bytes.writeBigUInt64BE(OPTION_MAGIC, 8);
  bytes.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16);
  return bytes;
}

export function optionReply(option: number, type: number, ...payload: readonly Uint8Array[]): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(payload.reduce((sum, { byteLength }) => sum + byteLength, 0), 16);
  return Buffer.concat([head, ...payload]);
}

/** A REP_SERVER of a list. */
export function serverReply({ name, description }: ServedExport): Buffer {
  return optionReply(Option.LIST, OptionReply.SERVER, u32(name.byteLength), name, description ?? Buffer.alloc(0));
}

export function infoReply(option: number, info: number, payload: Uint8Array): Buffer {
  return optionReply(option, OptionReply.INFO, u16(info), payload);
}

export function exportInfo(option: number, served: ServedExport, structured: boolean): Buffer {
  return infoReply(option, Info.EXPORT, sizeAndFlags(served, structured));
}

export function blockSizeInfo(option: number, { minimum, preferred, maximum }: BlockSizes): Buffer {
  return infoReply(option, Info.BLOCK_SIZE, Buffer.concat([u32(minimum), u32(preferred), u32(maximum)]));
}

export function contextReply(option: number, id: number, name: string): Buffer {
  return optionReply(option, OptionReply.META_CONTEXT, u32(id), Buffer.from(name));
}

/** The whole answer to EXPORT_NAME: there is no head. */
export function exportNameReply(served: ServedExport, structured: boolean, noZeroes: boolean): Buffer {
  return Buffer.concat([sizeAndFlags(served, structured), Buffer.alloc(noZeroes ? 0 : PADDING)]);
}

function sizeAndFlags(served: ServedExport, structured: boolean): Buffer {
  const bytes = Buffer.alloc(10);
  setU64(viewOf(bytes), 0, served.bytes);
  bytes.writeUInt16BE(served.flagsFor(structured), 8);
  return bytes;
}
