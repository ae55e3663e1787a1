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

export interface ImageUse {
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
