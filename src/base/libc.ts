/**
 * Host calls that Node lacks, through koffi. koffi loads at the first use and not at import: commands that never touch
 * an image must not pay for it. Where it does not load, `capabilities()` says why, and callers do without.
 */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import type { KoffiFunc, LibraryHandle } from 'koffi';
import { assert } from './assert.js';

export interface Capabilities {
  /** Open-file-description locks, the kind that QEMU takes. */
  readonly locks: boolean;
  /** Finding holes (SEEK_DATA, SEEK_HOLE). */
  readonly seekData: boolean;
  readonly punchHole: boolean;
  readonly zeroRange: boolean;
  /** Size, sector size and discard of block devices. */
  readonly ioctl: boolean;
  /** Reads and writes that fail where they would have to wait. */
  readonly noWait: boolean;
  /** Why they are missing; null where they are there. A single file system may still refuse a call. */
  readonly whyNot: string | null;
}

type VectorCall = KoffiFunc<(fd: number, vectors: Buffer, count: number, offset: number, flags: number) => number>;

interface Libc {
  readonly fcntl: KoffiFunc<(fd: number, command: number, argument: Buffer | null) => number>;
  readonly lseek: KoffiFunc<(fd: number, offset: number, whence: number) => number>;
  readonly fallocate: KoffiFunc<(fd: number, mode: number, offset: number, bytes: number) => number>;
  readonly ioctl: KoffiFunc<(fd: number, command: number, argument: Buffer) => number>;
  readonly dup3: KoffiFunc<(from: number, to: number, flags: number) => number>;
  readonly statx: KoffiFunc<(fd: number, path: string, flags: number, mask: number, into: Buffer) => number>;
  readonly preadv2: VectorCall;
  readonly pwritev2: VectorCall;
  readonly poll: KoffiFunc<(fds: Buffer, count: number, timeoutMs: number) => number>;
  readonly syncFileRange: KoffiFunc<(fd: number, offset: number, bytes: number, flags: number) => number>;
  readonly setsockopt: KoffiFunc<(fd: number, level: number, option: number, value: Buffer, bytes: number) => number>;
  readonly memmove: KoffiFunc<(to: Uint8Array, from: Uint8Array, bytes: number) => number | bigint>;
  errno(): number;
  readonly library: LibraryHandle;
  readonly view: (pointer: unknown, bytes: number) => ArrayBuffer;
}

/** struct flock and the ioctl numbers below are those of Linux on these processors. */
const KNOWN_PROCESSORS: readonly string[] = ['x64', 'arm64', 'riscv64', 'loong64'];

let loaded: Libc | null = null;
let known: Capabilities | null = null;

type Koffi = Pick<typeof import('koffi'), 'load' | 'errno' | 'view'>;

/**
 * koffi by its native part alone: the JavaScript that finds that part, and wraps what is deprecated, takes longer to
 * load than an image to open. Where the part is not at the usual place, koffi itself finds it.
 */
function loadKoffi(): Koffi {
  const require = createRequire(import.meta.url);
  try {
    const native = require(`@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`) as Partial<Koffi>;
    const { load, errno, view } = native;
    if (load !== undefined && errno !== undefined && view !== undefined) return { load, errno, view };
  } catch {
    // another C library, or another layout of node_modules
  }
  return require('koffi') as Koffi;
}

function load(): Libc {
  const koffi = loadKoffi();
  const libc = koffi.load(null);
  // fcntl and ioctl are variadic in C; on these processors one pointer is passed the same way
  return {
    fcntl: libc.func('int fcntl(int fd, int command, void *argument)'),
    lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)'),
    fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t bytes)'),
    ioctl: libc.func('int ioctl(int fd, unsigned long command, void *argument)'),
    dup3: libc.func('int dup3(int from, int to, int flags)'),
    statx: libc.func('int statx(int fd, const char *path, int flags, uint32_t mask, void *into)'),
    preadv2: libc.func('int64_t preadv2(int fd, void *vectors, int count, int64_t offset, int flags)'),
    pwritev2: libc.func('int64_t pwritev2(int fd, void *vectors, int count, int64_t offset, int flags)'),
    poll: libc.func('int poll(void *fds, unsigned long count, int timeoutMs)'),
    syncFileRange: libc.func('int sync_file_range(int fd, int64_t offset, int64_t bytes, unsigned int flags)'),
    setsockopt: libc.func('int setsockopt(int fd, int level, int option, void *value, uint32_t bytes)'),
    memmove: libc.func('uint64_t memmove(void *to, void *from, size_t bytes)'),
    errno: () => koffi.errno(),
    library: libc,
    view: (pointer, bytes) => koffi.view(pointer, bytes),
  };
}

function whyUnavailable(): string | null {
  if (process.env['QUIESCE_NO_LIBC'] === '1') return 'QUIESCE_NO_LIBC=1 turns host calls off';
  if (process.platform !== 'linux' || !KNOWN_PROCESSORS.includes(process.arch)) {
    return `host calls are not known on ${process.platform}-${process.arch}`;
  }
  try {
    loaded = load();
    return null;
  } catch (error) {
    return `koffi does not load: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}

export function capabilities(): Capabilities {
  if (known !== null) return known;
  const whyNot = whyUnavailable();
  const has = whyNot === null;
  known = { locks: has, seekData: has, punchHole: has, zeroRange: has, ioctl: has, noWait: has, whyNot };
  return known;
}

function libc(): Libc {
  const { whyNot } = capabilities();
  assert(loaded !== null, `a host call without its capability (${whyNot})`);
  return loaded;
}

/** For calls that one file alone has a use for (uring.ts). Only where there are capabilities. */
export function hostLibrary(): Pick<Libc, 'library' | 'view' | 'errno'> {
  return libc();
}

/** One of the two names of EAGAIN, as Node has it. */
const ERRNO_NAMES = new Map(Object.entries(constants.errno).filter(([name]) => name !== 'EWOULDBLOCK').map(([name, value]) => [value, name]));

export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/** Shaped like Node's own: `code` is the errno's name, so that errnoOf and wrapHostError understand it. */
class HostError extends Error {
  readonly code: string;

  constructor(call: string, errno: number) {
    const code = errnoName(errno);
    super(`${call}: ${code}`);
    this.name = 'HostError';
    this.code = code;
  }
}

function check(call: string, result: number): number {
  if (result < 0) throw new HostError(call, libc().errno());
  return result;
}

// -- locks ------------------------------------------------------------------------------------------------------------

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LockType = { READ: 0, WRITE: 1, NONE: 2 } as const;

/** struct flock for one byte: short type, short whence (SEEK_SET), padding, i64 start, i64 length, i32 pid (0 for OFD). */
function flock(type: number, byte: number): Buffer {
  const lock = Buffer.alloc(32);
  lock.writeInt16LE(type, 0);
  lock.writeBigInt64LE(BigInt(byte), 8);
  lock.writeBigInt64LE(1n, 16);
  return lock;
}

/** Takes a shared lock on one byte of the open file description. Fails with EAGAIN where another holds it exclusively. */
export function lockShared(fd: number, byte: number): void {
  check('fcntl(F_OFD_SETLK)', libc().fcntl(fd, F_OFD_SETLK, flock(LockType.READ, byte)));
}

/** The same, and nobody else may hold it meanwhile. */
export function lockExclusive(fd: number, byte: number): void {
  check('fcntl(F_OFD_SETLK)', libc().fcntl(fd, F_OFD_SETLK, flock(LockType.WRITE, byte)));
}

export function unlock(fd: number, byte: number): void {
  check('fcntl(F_OFD_SETLK)', libc().fcntl(fd, F_OFD_SETLK, flock(LockType.NONE, byte)));
}

/** True where someone else holds any lock on the byte. Takes nothing, and this description's own locks do not count. */
export function lockedElsewhere(fd: number, byte: number): boolean {
  const lock = flock(LockType.WRITE, byte);
  check('fcntl(F_OFD_GETLK)', libc().fcntl(fd, F_OFD_GETLK, lock));
  return lock.readInt16LE(0) !== LockType.NONE;
}

const O_CLOEXEC = 0o2000000;

/** Makes `to` the same open file as `from`, at once; calls in flight on `to` end on what it was. */
export function replaceDescriptor(from: number, to: number): void {
  check('dup3', libc().dup3(from, to, O_CLOEXEC));
}

// -- holes ------------------------------------------------------------------------------------------------------------

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

function seek(fd: number, offset: number, whence: number): number | null {
  const found = libc().lseek(fd, offset, whence);
  if (found >= 0) return found;
  const errno = libc().errno();
  if (errno === constants.errno.ENXIO) return null;
  throw new HostError('lseek', errno);
}

/** The first byte of data at or after `offset`; null where there is none before the end of the file. */
export function seekData(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_DATA);
}

/** The first byte of a hole at or after `offset` (the end of the file is one); null past the end. */
export function seekHole(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_HOLE);
}

// -- calls that may take long -----------------------------------------------------------------------------------------

/** koffi keeps few stacks for asynchronous calls and refuses more than 256 at once, so the rest waits here. */
const SLOW_CALLS = 8;
let slowRunning = 0;
const slowWaiters: (() => void)[] = [];

/** Runs a call on the thread pool, so that a long one does not stop the event loop. Resolves to its result; rejects with the errno's name as `code`. */
export async function slowly(name: string, start: (done: (error: Error | null, result: number) => void) => void): Promise<number> {
  while (slowRunning >= SLOW_CALLS) await new Promise<void>((resume) => slowWaiters.push(resume));
  slowRunning++;
  try {
    for (;;) {
      const result = await attempt(name, start);
      if (result !== INTERRUPTED) return result;
    }
  } finally {
    slowRunning--;
    slowWaiters.shift()?.();
  }
}

/** A signal interrupted the call before it did anything. */
const INTERRUPTED = -1;

function attempt(name: string, start: (done: (error: Error | null, result: number) => void) => void): Promise<number> {
  return new Promise((resolve, reject) => start((error, result) => {
    // koffi brings the call's own errno over from its thread, for this callback only
    const errno = libc().errno();
    if (error !== null) reject(error);
    else if (result >= 0) resolve(result);
    else if (errno === constants.errno.EINTR) resolve(INTERRUPTED);
    else reject(new HostError(name, errno));
  }));
}

const FALLOC_KEEP_SIZE = 0x01;
const FALLOC_PUNCH_HOLE = 0x02;
const FALLOC_ZERO_RANGE = 0x10;

async function fallocate(fd: number, mode: number, offset: number, bytes: number): Promise<void> {
  await slowly('fallocate', (done) => libc().fallocate.async(fd, mode, offset, bytes, done));
}

/** Deallocates the range, which then reads as zeros. Never changes the file's length. */
export function punchHole(fd: number, offset: number, bytes: number): Promise<void> {
  return fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, bytes);
}

/** Makes the range read as zeros and keeps it allocated. The file does not become longer. */
export function zeroRange(fd: number, offset: number, bytes: number): Promise<void> {
  return fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, offset, bytes);
}

/** Allocates what the range lacks and leaves its content alone; extends the file where the range ends past it, if asked. */
export function preallocate(fd: number, offset: number, bytes: number, options: { extend: boolean }): Promise<void> {
  return fallocate(fd, options.extend ? 0 : FALLOC_KEEP_SIZE, offset, bytes);
}

const SYNC_FILE_RANGE_WRITE = 2;

/** What the range has in the page cache is on its way to the disk when it resolves. Tells nothing of whether it will get there. */
export async function startWriteOut(fd: number, offset: number, bytes: number): Promise<void> {
  await slowly('sync_file_range', (done) => libc().syncFileRange.async(fd, offset, bytes, SYNC_FILE_RANGE_WRITE, done));
}

// -- reads and writes that never wait -----------------------------------------------------------------------------------

const RWF_NOWAIT = 8;
/** One struct iovec: address and length, filled anew for each call. */
const vector = Buffer.alloc(16);
const vectorWords = new BigUint64Array(vector.buffer, vector.byteOffset, 2);

/** The address of memory that never moves: an arena's (see BufferPool), not an ordinary buffer's. */
export function addressOf(memory: Uint8Array): bigint {
  return BigInt(libc().memmove(memory, memory, 0));
}

/** `unsupported`: the file's file system (or the kernel) has no such call. */
type NoWaitResult = number | 'would-wait' | 'unsupported';

function noWait(call: VectorCall, fd: number, address: bigint, bytes: number, offset: number): NoWaitResult {
  vectorWords[0] = address;
  vectorWords[1] = BigInt(bytes);
  const moved = call(fd, vector, 1, offset, RWF_NOWAIT);
  if (moved >= 0) return moved;
  const errno = libc().errno();
  return errno === constants.errno.EOPNOTSUPP || errno === constants.errno.ENOSYS || errno === constants.errno.EINVAL ? 'unsupported' : 'would-wait';
}

/** Reads what is in the page cache; how many bytes that was. Every error counts as having to wait: the ordinary call will tell it. */
export function readNoWait(fd: number, address: bigint, bytes: number, offset: number): NoWaitResult {
  return noWait(libc().preadv2, fd, address, bytes, offset);
}

export function writeNoWait(fd: number, address: bigint, bytes: number, offset: number): NoWaitResult {
  return noWait(libc().pwritev2, fd, address, bytes, offset);
}

// -- block devices and O_DIRECT ---------------------------------------------------------------------------------------

const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKDISCARD = 0x1277;
const BLKGETSIZE64 = 0x8008_1272;

function ioctlWord(fd: number, name: string, command: number): Buffer {
  const word = Buffer.alloc(8);
  check(`ioctl(${name})`, libc().ioctl(fd, command, word));
  return word;
}

export function deviceBytes(fd: number): number {
  return Number(ioctlWord(fd, 'BLKGETSIZE64', BLKGETSIZE64).readBigUInt64LE());
}

export function deviceSectorBytes(fd: number): number {
  return ioctlWord(fd, 'BLKSSZGET', BLKSSZGET).readInt32LE();
}

/** True for a device set read-only by blockdev(8): it still opens for writing, and then every write fails. */
export function deviceIsReadOnly(fd: number): boolean {
  return ioctlWord(fd, 'BLKROGET', BLKROGET).readInt32LE() !== 0;
}

/** Tells the device that the range is not needed; what it reads as afterwards is the device's choice. */
export async function deviceDiscard(fd: number, offset: number, bytes: number): Promise<void> {
  const range = Buffer.alloc(16);
  range.writeBigUInt64LE(BigInt(offset), 0);
  range.writeBigUInt64LE(BigInt(bytes), 8);
  await slowly('ioctl(BLKDISCARD)', (done) => libc().ioctl.async(fd, BLKDISCARD, range, done));
}

const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;

/** The offset and length alignment that O_DIRECT wants on this file; null where the kernel does not tell (before 6.1). */
export function directIoAlignment(fd: number): number | null {
  const info = Buffer.alloc(256);
  if (libc().statx(fd, '', AT_EMPTY_PATH, STATX_DIOALIGN, info) < 0) return null;
  const told = (info.readUInt32LE(0) & STATX_DIOALIGN) !== 0;
  const alignment = info.readUInt32LE(156);
  return told && alignment > 0 ? alignment : null;
}

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

/** How much a socket takes before its reader has read; the host may grant less. A wish: nothing happens where it cannot be had. */
export function setSendBuffer(fd: number, bytes: number): void {
  if (capabilities().whyNot !== null) return;
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes);
  libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength);
}

const F_DUPFD_CLOEXEC = 1030;

/** Another descriptor of the same open file. */
export function duplicateDescriptor(fd: number): number {
  return check('fcntl(F_DUPFD_CLOEXEC)', libc().fcntl(fd, F_DUPFD_CLOEXEC, null));
}

const TIOCSPTLCK = 0x4004_5431;
const TIOCGPTN = 0x8004_5430;
const TCGETS = 0x5401;
const TCSETS = 0x5402;
/** struct termios as the kernel has it: four words of flags, the line discipline, 19 control characters. */
const TERMIOS_BYTES = 36;
const VMIN = 17 + 6;
const VTIME = 17 + 5;
/** Raw: no translation, no echo, no signals, 8 bits (as cfmakeraw has it). */
const RAW: readonly (readonly [at: number, clear: number, set: number])[] = [[0, 0o2753, 0], [4, 0o1, 0], [8, 0o460, 0o60], [12, 0o100113, 0]];

/** Makes the other side of an open /dev/ptmx ready, without any translation; returns its path. */
export function unlockTerminal(fd: number): string {
  check('ioctl(TIOCSPTLCK)', libc().ioctl(fd, TIOCSPTLCK, Buffer.alloc(4)));
  const flags = Buffer.alloc(TERMIOS_BYTES);
  check('ioctl(TCGETS)', libc().ioctl(fd, TCGETS, flags));
  for (const [at, clear, set] of RAW) flags.writeUInt32LE(((flags.readUInt32LE(at) & ~clear) | set) >>> 0, at);
  flags[VMIN] = 1;
  flags[VTIME] = 0;
  check('ioctl(TCSETS)', libc().ioctl(fd, TCSETS, flags));
  return `/dev/pts/${ioctlWord(fd, 'TIOCGPTN', TIOCGPTN).readUInt32LE()}`;
}

const POLLHUP = 16;

/** Whether the other side of a terminal or pipe is closed now. */
export function isHungUp(fd: number): boolean {
  const entry = Buffer.alloc(8);
  entry.writeInt32LE(fd);
  return libc().poll(entry, 1, 0) > 0 && (entry.readUInt16LE(6) & POLLHUP) !== 0;
}
