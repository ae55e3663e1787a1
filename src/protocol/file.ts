/** Opens image files: access, type, image lock, O_DIRECT alignment, and only then truncation. */
import fs from 'node:fs';
import { BufferPool, PAGE } from '../base/buffer-pool.js';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import { capabilities, deviceBytes, deviceIsReadOnly, deviceSectorBytes, directIoAlignment } from '../base/libc.js';
import { RingUser } from '../base/uring.js';
import { NO_LIMITS, type BlockLimits } from '../block/driver.js';
import { FileDriver, type Following } from './file-driver.js';
import { closeFd, truncate } from './file-io.js';
import { FollowingLocks, IMAGE_USES, lockImage } from './image-lock.js';
import { isInMemory, quickIo } from './quick-io.js';

export interface FileOptions {
  readonly readOnly?: boolean;
  /** O_DIRECT. */
  readonly direct?: boolean;
  /** `auto` (default) locks where the host can, and refuses to write where it cannot; `on` refuses to read there too. */
  readonly locking?: 'auto' | 'on' | 'off';
  /** Read beside a writer (QEMU's -U). Only with readOnly. */
  readonly forceShare?: boolean;
  /** Make the file, or empty it once its lock is held: an image in use is left as it is. A device keeps its content. */
  readonly create?: boolean;
  /** How errors call it; the path by default. */
  readonly name?: string;
  /** The locks follow the users of the node in its graph, and none is taken before there are any. */
  readonly followUsers?: boolean;
  /** With followUsers: open read-only, and for writing once a user writes (QEMU's auto-read-only). */
  readonly writeLater?: boolean;
}

export async function openFileDriver(path: string, options: FileOptions = {}): Promise<FileDriver> {
  refuseNonsense(path, options);
  await refuseOddFiles(path);
  const fd = await openFd(path, options);
  try {
    return await setUp(fd, path, options);
  } catch (error) {
    await closeFd(fd).catch(() => undefined);
    throw wrapHostError(error, `Could not open '${path}'`, { node: path });
  }
}

function refuseNonsense(path: string, { readOnly, forceShare, create }: FileOptions): void {
  const refuse = (why: string): never => {
    throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}': ${why}`, { node: path });
  };
  if (path === '' || path.includes('\0')) throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}': a file name is expected`, { node: path, errno: 'ENOENT' });
  if (forceShare === true && readOnly !== true) refuse('force-share needs a read-only open');
  if (create === true && readOnly === true) refuse('a file cannot be created read-only');
}

/** Looks before opening: opening a FIFO blocks, and opening some character devices has effects. */
async function refuseOddFiles(path: string): Promise<void> {
  const stat = await fs.promises.stat(path).catch(() => null); // open() tells the error
  const odd = stat === null ? null : oddType(stat);
  if (odd !== null) {
    throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}': expected a regular file or a block device, found ${odd}`,
      { node: path, errno: stat?.isDirectory() === true ? 'EISDIR' : 'EINVAL' });
  }
}

function oddType(stat: fs.Stats): string | null {
  if (stat.isFile() || stat.isBlockDevice()) return null;
  if (stat.isDirectory()) return 'a directory';
  if (stat.isCharacterDevice()) return 'a character device';
  if (stat.isFIFO()) return 'a FIFO';
  return stat.isSocket() ? 'a socket' : 'something else';
}

function openFd(path: string, options: FileOptions): Promise<number> {
  const { O_RDONLY, O_RDWR, O_CREAT, O_DIRECT, O_NONBLOCK } = fs.constants;
  // O_NONBLOCK is for the FIFO that took the file's place since it was looked at
  const flags = (options.readOnly === true ? O_RDONLY : O_RDWR) | O_NONBLOCK |
    (options.create === true ? O_CREAT : 0) | (options.direct === true ? O_DIRECT : 0);
  return new Promise((resolve, reject) => fs.open(path, flags, 0o644, (error, fd) => {
    if (error === null) return resolve(fd);
    const refusesDirect = options.direct === true && errnoOf(error) === 'EINVAL';
    const why = refusesDirect ? `: its file system does not support O_DIRECT, which the cache mode asks for` : '';
    reject(refusesDirect
      ? new BlockError('NOT_SUPPORTED', `Could not open '${path}'${why}`, { node: path, errno: 'EINVAL', cause: error })
      : wrapHostError(error, `Could not open '${path}'`, { node: path }));
  }));
}

async function setUp(fd: number, path: string, options: FileOptions): Promise<FileDriver> {
  const stat = fs.fstatSync(fd);
  const odd = oddType(stat);
  if (odd !== null) throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}': it became ${odd} while being opened`, { node: path });
  if (options.followUsers !== true) lock(fd, path, options);
  const isDevice = stat.isBlockDevice();
  if (isDevice) refuseUnusableDevice(fd, path, options);
  if (options.create === true && !isDevice) await truncate(fd, 0);
  const direct = options.direct === true;
  const inMemory = !isDevice && isInMemory(fd);
  return new FileDriver({
    fd,
    isDevice,
    name: options.name ?? path,
    bytes: isDevice ? deviceBytes(fd) : fs.fstatSync(fd).size,
    limits: direct ? await directLimits(fd, path, isDevice) : NO_LIMITS,
    sectorBytes: isDevice ? deviceSectorBytes(fd) : 1,
    growAhead: direct && !inMemory,
    inMemory,
    quick: quickIo(fd, { inMemory, direct }),
    cached: !direct && !inMemory,
    ring: inMemory ? null : new RingUser(),
    following: options.followUsers === true ? followingOf(stat, path, options) : null,
  });
}

function followingOf({ dev, ino }: fs.Stats, path: string, options: FileOptions): Following {
  const { locking = 'auto' } = options;
  if (locking === 'on' && !capabilities().locks) refuseWithoutLocks(path);
  return {
    locks: locking === 'off' || !capabilities().locks ? null : new FollowingLocks(),
    access: { readOnly: options.readOnly === true && options.writeLater !== true, later: options.writeLater === true, direct: options.direct === true },
    open: async ({ readOnly, direct }) => {
      const fd = await openFd(path, { readOnly, direct });
      try {
        const found = fs.fstatSync(fd);
        if (found.dev !== dev || found.ino !== ino) {
          throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}' again: it is another file now`, { node: path });
        }
        const isDevice = found.isBlockDevice();
        const inMemory = !isDevice && isInMemory(fd);
        return {
          fd, limits: direct ? await directLimits(fd, path, isDevice) : NO_LIMITS, growAhead: direct && !inMemory,
          quickFor: (final) => quickIo(final, { inMemory, direct }),
        };
      } catch (error) {
        await closeFd(fd);
        throw error;
      }
    },
  };
}

function refuseWithoutLocks(path: string): never {
  throw new BlockError('NOT_SUPPORTED',
    `Could not open '${path}': image locks are not available (${capabilities().whyNot}); locking=off opens it without them`, { node: path });
}

function lock(fd: number, path: string, { locking = 'auto', readOnly = false, forceShare = false }: FileOptions): void {
  if (locking === 'off') return;
  const { locks } = capabilities();
  if (!locks && (locking === 'on' || !readOnly)) refuseWithoutLocks(path);
  if (locks) lockImage(fd, path, readOnly ? (forceShare ? IMAGE_USES.sharingReader : IMAGE_USES.reader) : IMAGE_USES.writer);
}

function refuseUnusableDevice(fd: number, path: string, options: FileOptions): void {
  const { ioctl, whyNot } = capabilities();
  if (!ioctl) {
    throw new BlockError('NOT_SUPPORTED', `Could not open '${path}': the size of a block device cannot be learnt (${whyNot})`, { node: path });
  }
  if (options.readOnly !== true && deviceIsReadOnly(fd)) {
    throw new BlockError('READ_ONLY', `Could not open '${path}': the device is read-only`, { node: path });
  }
}

async function directLimits(fd: number, path: string, isDevice: boolean): Promise<BlockLimits> {
  const told = capabilities().ioctl ? (isDevice ? deviceSectorBytes(fd) : directIoAlignment(fd)) : null;
  const requestAlignment = told ?? await probeAlignment(fd);
  if (requestAlignment === null || requestAlignment > PAGE) {
    throw new BlockError('NOT_SUPPORTED',
      `Could not open '${path}': no alignment up to ${PAGE} bytes works with O_DIRECT, which the cache mode asks for`, { node: path });
  }
  return { requestAlignment, memoryAlignment: PAGE, maxTransfer: Infinity };
}

/** Finds the smallest read that O_DIRECT takes. Where even one byte goes through, the answer means nothing: be careful then. */
async function probeAlignment(fd: number): Promise<number | null> {
  const lease = await new BufferPool(PAGE).lease(PAGE);
  for (const bytes of [1, 512, 1024, 2048, PAGE]) {
    const refused = await new Promise<boolean>((resolve) => {
      fs.read(fd, lease.buffer, 0, bytes, 0, (error) => resolve(errnoOf(error) === 'EINVAL'));
    });
    if (!refused) return bytes === 1 ? PAGE : bytes;
  }
  return null;
}
