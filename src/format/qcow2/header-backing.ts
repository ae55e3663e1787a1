/**
 * Puts another backing file name into a header that is in use. The new name is written where nothing is read yet, and
 * one write of the first sector points at it: after a crash the old name is there, or the new one.
 */
import { alignUp, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { EXTENSION_BACKING_FORMAT, EXTENSION_END, HEADER_FIELDS, type HeaderExtension, type HeaderPatch, type HeaderStore } from './header.js';
import { SECTOR } from './layout.js';

const EXTENSION_HEADER_BYTES = 8;
const MAX_NAME_BYTES = 1023;

/**
 * What is to be written, in steps: each is durable before the next one. Throws where there is no room, before anything
 * is written. `name` null or empty: the image is to have no backing file. `format` null leaves what is recorded. A format
 * is recorded where the header has, or can be given, a place for it at the same moment as the name; else the format of
 * the new backing file is probed when the image is opened.
 */
export function planBackingName(store: HeaderStore, name: string | null, format: string | null): HeaderPatch[][] {
  const { header } = store;
  if (name === null || name === '') return [...header.backing === null ? [] : [[noName(store, header.backing)]], ...noFormat(store)];
  const bytes = Buffer.from(name, 'utf8');
  if (bytes.byteLength > MAX_NAME_BYTES) {
    throw new BlockError('INVALID_ARGUMENT', `a backing file name of ${bytes.byteLength} bytes does not go into '${store.name}', which takes at most ${MAX_NAME_BYTES}`, { node: store.name });
  }
  // a format without a name means nothing yet, so that it may come first
  const steps = format !== null && header.backing === null && !header.extensions.some(isFormat) ? appended(store, format) : [];
  const end = header.extensionsEnd + (steps.length === 0 ? 0 : EXTENSION_HEADER_BYTES + alignUp(Buffer.byteLength(format!), 8));
  const to = placeFor(store, end, bytes.byteLength);
  const fields = new Uint8Array(12);
  setU64(viewOf(fields), 0, to);
  viewOf(fields).setUint32(8, bytes.byteLength);
  return [...steps, [...formatPatches(store, format), { offset: to, bytes }, { offset: HEADER_FIELDS.backingOffset, bytes: fields }]];
}

/** The extension keeps its place, for those behind it must not move; QEMU takes a string that begins with a NUL for none. After the name: a name without a format would be probed. */
function noFormat({ header }: HeaderStore): HeaderPatch[][] {
  const slot = header.extensions.find(isFormat);
  if (slot === undefined || header.backingFormat === null) return [];
  return [[{ offset: slot.offset + EXTENSION_HEADER_BYTES, bytes: new Uint8Array(slot.data.byteLength) }]];
}

function noName(store: HeaderStore, backing: { readonly offset: number }): HeaderPatch {
  const fields = new Uint8Array(12);
  // Extensions may end where the name begins; it stays their end where no mark is
  if (store.header.extensionsEnd + EXTENSION_HEADER_BYTES > backing.offset) setU64(viewOf(fields), 0, backing.offset);
  return { offset: HEADER_FIELDS.backingOffset, bytes: fields };
}

function isFormat({ type }: HeaderExtension): boolean {
  return type === EXTENSION_BACKING_FORMAT;
}

/** Behind the extensions, and not where the old name lies. */
function placeFor(store: HeaderStore, extensionsEnd: number, bytes: number): number {
  const { geometry, backing } = store.header;
  const start = alignUp(extensionsEnd + EXTENSION_HEADER_BYTES, 8);
  const at = backing === null || start + bytes <= backing.offset ? start : alignUp(Math.max(start, backing.offset + backing.bytes), 8);
  if (at + bytes <= geometry.clusterSize) return at;
  throw new BlockError('NO_SPACE', `the header of '${store.name}' has no room for a backing file name of ${bytes} bytes`, { node: store.name });
}

/** Other content for the extension that is there, where it has the room and lies in the sector that switches everything. */
function formatPatches(store: HeaderStore, format: string | null): HeaderPatch[] {
  const slot = store.header.extensions.find(isFormat);
  if (format === null || slot === undefined || Buffer.from(slot.data).toString() === format) return [];
  const data = Buffer.from(format, 'utf8');
  const room = alignUp(slot.data.byteLength, 8);
  if (data.byteLength > room || slot.offset + EXTENSION_HEADER_BYTES + room > SECTOR) {
    throw new BlockError('NO_SPACE', `the header of '${store.name}' has no room for the backing format '${format}'`, { node: store.name });
  }
  const patch = new Uint8Array(4 + room);
  viewOf(patch).setUint32(0, data.byteLength);
  patch.set(data, 4);
  return [{ offset: slot.offset + 4, bytes: patch }];
}

/** Behind the end mark nobody reads; with the mark's sector the extension is there, whole. */
function appended(store: HeaderStore, format: string): HeaderPatch[][] {
  const at = store.header.extensionsEnd;
  const data = Buffer.from(format, 'utf8');
  const room = alignUp(data.byteLength, 8);
  if (at + EXTENSION_HEADER_BYTES + room + EXTENSION_HEADER_BYTES > store.header.geometry.clusterSize) return [];
  const tail = new Uint8Array(room + EXTENSION_HEADER_BYTES);
  tail.set(data);
  viewOf(tail).setUint32(room, EXTENSION_END);
  const head = new Uint8Array(EXTENSION_HEADER_BYTES);
  viewOf(head).setUint32(0, EXTENSION_BACKING_FORMAT);
  viewOf(head).setUint32(4, data.byteLength);
  return [[{ offset: at + EXTENSION_HEADER_BYTES, bytes: tail }], [{ offset: at, bytes: head }]];
}
