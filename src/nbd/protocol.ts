/** Numbers of the NBD protocol, by their names in its specification (doc/proto.md of the NBD project). All on the wire is big-endian. */
export const DEFAULT_PORT = 10809;

/** "NBDMAGIC", "IHAVEOPT" and the magic of an option's reply. */
export const INIT_MAGIC = 0x4e42_444d_4147_4943n;
export const OPTION_MAGIC = 0x4948_4156_454f_5054n;
export const OLDSTYLE_MAGIC = 0x0000_4202_8186_1253n;
export const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
export const REQUEST_MAGIC = 0x2560_9513;
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const STRUCTURED_REPLY_MAGIC = 0x668e_33ef;

/** Names of exports, descriptions and contexts are at most this long, in bytes of UTF-8. */
export const MAX_STRING = 4096;
/** The largest READ and WRITE where no block sizes were negotiated, and what QEMU and libnbd use. */
export const MAX_PAYLOAD = 32 * 1024 * 1024;

export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;
export const ClientFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const TransmissionFlag = {
  HAS_FLAGS: 1, READ_ONLY: 2, SEND_FLUSH: 4, SEND_FUA: 8, ROTATIONAL: 16, SEND_TRIM: 32, SEND_WRITE_ZEROES: 64, SEND_DF: 128,
  CAN_MULTI_CONN: 256, SEND_RESIZE: 512, SEND_CACHE: 1024, SEND_FAST_ZERO: 2048,
} as const;

export const Option = {
  EXPORT_NAME: 1, ABORT: 2, LIST: 3, PEEK_EXPORT: 4, STARTTLS: 5, INFO: 6, GO: 7, STRUCTURED_REPLY: 8, LIST_META_CONTEXT: 9, SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

const OPTION_NAMES: Readonly<Record<number, string>> = {
  [Option.EXPORT_NAME]: 'export name', [Option.ABORT]: 'abort', [Option.LIST]: 'list', [Option.STARTTLS]: 'starttls', [Option.INFO]: 'info', [Option.GO]: 'go',
  [Option.STRUCTURED_REPLY]: 'structured reply', [Option.LIST_META_CONTEXT]: 'list meta context', [Option.SET_META_CONTEXT]: 'set meta context',
};

export function optionName(option: number): string {
  return OPTION_NAMES[option] ?? '<unknown>';
}

export const OptionReply = {
  ACK: 1, SERVER: 2, INFO: 3, META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001, ERR_POLICY: 0x8000_0002, ERR_INVALID: 0x8000_0003, ERR_PLATFORM: 0x8000_0004, ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006, ERR_SHUTDOWN: 0x8000_0007, ERR_BLOCK_SIZE_REQD: 0x8000_0008, ERR_TOO_BIG: 0x8000_0009,
} as const;

export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const Command = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6, BLOCK_STATUS: 7, RESIZE: 8 } as const;

export const CommandFlag = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

export const ReplyFlag = { DONE: 1 } as const;
export const ReplyType = { NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, BLOCK_STATUS: 5, ERROR: 0x8001, ERROR_OFFSET: 0x8002 } as const;

/** Status bits of `base:allocation`. */
export const Allocation = { HOLE: 1, ZERO: 2 } as const;

/** The errors that the protocol knows; every other errno travels as EINVAL. */
export const ERRNO_TO_WIRE: Readonly<Record<string, number>> = {
  EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28, EOVERFLOW: 75, ENOTSUP: 95, ESHUTDOWN: 108,
};
export const WIRE_TO_ERRNO: Readonly<Record<number, string>> = Object.fromEntries(Object.entries(ERRNO_TO_WIRE).map(([name, value]) => [value, name]));

/** The number as the 2 bytes that go over the wire. */
export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** The number as the 4 bytes that go over the wire. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
