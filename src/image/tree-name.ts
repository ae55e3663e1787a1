/** Tells names that stand for a tree of nodes from names of files. Apart, so that programs that open files load nothing more. */
import { isNbdName } from '../nbd/name.js';

/** Beside QEMU's prefixes: a tree written as `driver=…,file.filename=…`, as behind its `--image-opts`. */
const OPTIONS = /^(?:driver|file\.[a-z][a-z0-9.-]*)=/;
const PREFIX = /^(?:json|blkdebug|blkverify|null-co|null-aio|host_device):/;

/** True for `driver=…` and `file.…=…`. A file of such a name is opened as `./driver=…`. */
export function isOptionName(name: string): boolean {
  return OPTIONS.test(name);
}

/** True where the name opens a tree of nodes, and not just a file. */
export function isTreeName(name: string): boolean {
  return PREFIX.test(name) || isOptionName(name);
}

/** True where the name is that of a file, which can be made: an export or a tree of nodes is there, or is not. */
export function isFileName(name: string): boolean {
  return !isNbdName(name) && !isTreeName(name);
}
