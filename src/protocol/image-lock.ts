/**
 * QEMU's image locks. Each permission is one bit; a user of an image holds a shared lock on byte 100 + bit for every
 * permission it uses, and on byte 200 + bit for every permission it does not grant to others. Two users conflict where
 * one uses what the other does not share. All locks are shared ones, so taking them cannot fail by a conflict: the
 * conflict shows when the opposite bytes are tested afterwards. Taking first and testing second means that of two
 * racing users at least one sees the other.
 */
import { BlockError, wrapHostError } from '../base/errors.js';
import { lockedElsewhere, lockShared, unlock } from '../base/libc.js';

interface Permission {
  readonly bit: number;
  readonly name: string;
}

const CONSISTENT_READ: Permission = { bit: 0, name: 'consistent read' };
const WRITE: Permission = { bit: 1, name: 'write' };
const RESIZE: Permission = { bit: 3, name: 'resize' };

const USED_BASE = 100;
const UNSHARED_BASE = 200;

interface ImageUse {
  readonly used: readonly Permission[];
  readonly unshared: readonly Permission[];
}

/** What QEMU 7.2 takes for a qcow2 image, observed in /proc/locks. Ours is the same for every format. */
export const IMAGE_USES = {
  writer: { used: [CONSISTENT_READ, WRITE, RESIZE], unshared: [WRITE, RESIZE] },
  reader: { used: [CONSISTENT_READ], unshared: [WRITE, RESIZE] },
  /** QEMU's force-share (-U): reads beside a writer, and may see an image in the middle of a change. */
  sharingReader: { used: [CONSISTENT_READ], unshared: [] },
} as const satisfies Record<string, ImageUse>;

/** Locks the image for `use` until the fd is closed, or throws LOCKED and leaves no lock behind. */
export function lockImage(fd: number, path: string, use: ImageUse): void {
  const held: number[] = [];
  try {
    for (const byte of bytesOf(use)) {
      lockShared(fd, byte);
      held.push(byte);
    }
    refuseConflict(fd, path, use);
  } catch (error) {
    for (const byte of held) unlock(fd, byte);
    throw wrapHostError(error, `Could not lock '${path}' (locking=off opens it without image locks)`, { node: path });
  }
}

function bytesOf(use: ImageUse): number[] {
  return [...use.used.map(({ bit }) => USED_BASE + bit), ...use.unshared.map(({ bit }) => UNSHARED_BASE + bit)];
}

function refuseConflict(fd: number, path: string, use: ImageUse): void {
  const refused = use.used.find(({ bit }) => lockedElsewhere(fd, UNSHARED_BASE + bit));
  const shared = use.unshared.find(({ bit }) => lockedElsewhere(fd, USED_BASE + bit));
  const conflict = refused === undefined ? shared && `shared "${shared.name}"` : `"${refused.name}"`;
  if (conflict === undefined) return;
  throw new BlockError('LOCKED',
    `Could not open '${path}': Failed to get ${conflict} lock (Is another process using the image [${path}]?)`,
    { node: path, errno: 'EAGAIN' });
}

/**
 * The locks of a file whose users come and go: they follow what the users do and share. Taking is in two steps, so that
 * a change that fails elsewhere can be undone.
 */
export class FollowingLocks {
  /** The bytes locked now: those needed, and those taken for a change that is being prepared. */
  readonly #held = new Set<number>();

  /** Takes what is lacking on `fd`, or throws LOCKED with QEMU's sentence. `commit` lets go of what is no longer needed. */
  prepare(fd: number, path: string, used: number, unshared: number): { commit(): void; abort(): void } {
    const wanted = new Set(bytesOfMasks(used, unshared));
    const taken: number[] = [];
    const drop = (byte: number): void => {
      unlock(fd, byte);
      this.#held.delete(byte);
    };
    try {
      for (const byte of wanted) {
        if (this.#held.has(byte)) continue;
        lockShared(fd, byte);
        this.#held.add(byte);
        taken.push(byte);
      }
      refuseConflictOf(fd, path, used, unshared);
    } catch (error) {
      for (const byte of taken) drop(byte);
      throw wrapHostError(error, `Could not lock '${path}'`, { node: path });
    }
    return {
      commit: () => { for (const byte of [...this.#held]) if (!wanted.has(byte)) drop(byte); },
      abort: () => { for (const byte of taken) drop(byte); },
    };
  }

  /** Takes the same locks on a second descriptor of the file, which is to stand in for the first. */
  copyTo(fd: number): void {
    for (const byte of this.#held) lockShared(fd, byte);
  }
}

const PERMISSIONS: readonly Permission[] = [CONSISTENT_READ, WRITE, { bit: 2, name: 'write unchanged' }, RESIZE];

function bitsOf(mask: number): Permission[] {
  return PERMISSIONS.filter(({ bit }) => (mask & (1 << bit)) !== 0);
}

function bytesOfMasks(used: number, unshared: number): number[] {
  return [...bitsOf(used).map(({ bit }) => USED_BASE + bit), ...bitsOf(unshared).map(({ bit }) => UNSHARED_BASE + bit)];
}

function refuseConflictOf(fd: number, path: string, used: number, unshared: number): void {
  const refuse = (what: string): never => {
    throw new BlockError('LOCKED', `Failed to get ${what} lock`, { node: path, errno: 'EAGAIN', hint: `Is another process using the image [${path}]?` });
  };
  for (const { bit, name } of bitsOf(used)) if (lockedElsewhere(fd, UNSHARED_BASE + bit)) refuse(`"${name}"`);
  for (const { bit, name } of bitsOf(unshared)) if (lockedElsewhere(fd, USED_BASE + bit)) refuse(`shared "${name}"`);
}
