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
 * `format` null leaves what is recorded. A format is recorded where the header has, or can be given, a place for it at
 * the same moment as the name; else the format of the new backing file is probed when the image is opened.
 */
export async function changeBackingName(store: HeaderStore, name: string, format: string | null): Promise<void> {
  const { header } = store;
  const bytes = Buffer.from(name, 'utf8');
  if (bytes.byteLength === 0 || bytes.byteLength > MAX_NAME_BYTES) {
    throw new BlockError('INVALID_ARGUMENT', `a backing file name of ${bytes.byteLength} bytes does not go into '${store.name}', which takes 1 to ${MAX_NAME_BYTES}`, { node: store.name });
  }
  // a format without a name means nothing yet, so that it may come first
  if (format !== null && header.backing === null && !header.extensions.some(isFormat)) await appendFormat(store, format);
  const to = placeFor(store, bytes.byteLength);
  const fields = new Uint8Array(12);
  setU64(viewOf(fields), 0, to);
  viewOf(fields).setUint32(8, bytes.byteLength);
  await store.edit([...formatPatches(store, format), { offset: to, bytes }, { offset: HEADER_FIELDS.backingOffset, bytes: fields }]);
  header.backing = { offset: to, bytes: bytes.byteLength };
  header.backingFile = name;
}

function isFormat({ type }: HeaderExtension): boolean {
  return type === EXTENSION_BACKING_FORMAT;
}

/** Behind the extensions, and not where the old name lies. */
function placeFor(store: HeaderStore, bytes: number): number {
  const { geometry, extensionsEnd, backing } = store.header;
  const start = alignUp(extensionsEnd + EXTENSION_HEADER_BYTES, 8);
  if (backing === null || start + bytes <= backing.offset) return fits(store, start, bytes, geometry.clusterSize);
  return fits(store, alignUp(Math.max(start, backing.offset + backing.bytes), 8), bytes, geometry.clusterSize);
}

function fits(store: HeaderStore, at: number, bytes: number, limit: number): number {
  if (at + bytes <= limit) return at;
  throw new BlockError('NO_SPACE', `the header of '${store.name}' has no room for a backing file name of ${bytes} bytes`, { node: store.name });
}

/** Other content for the extension that is there, where it has the room and lies in the sector that switches everything. */
function formatPatches(store: HeaderStore, format: string | null): HeaderPatch[] {
  const slot = store.header.extensions.find(isFormat);
  if (format === null || slot === undefined) return [];
  const data = Buffer.from(format, 'utf8');
  const room = alignUp(slot.data.byteLength, 8);
  if (data.byteLength > room || slot.offset + EXTENSION_HEADER_BYTES + room > SECTOR) {
    throw new BlockError('NO_SPACE', `the header of '${store.name}' has no room for the backing format '${format}'`, { node: store.name });
  }
  const patch = new Uint8Array(4 + room);
  viewOf(patch).setUint32(0, data.byteLength);
  patch.set(data, 4);
  slot.data = data;
  store.header.backingFormat = format;
  return [{ offset: slot.offset + 4, bytes: patch }];
}

async function appendFormat(store: HeaderStore, format: string): Promise<void> {
  const { header } = store;
  const at = header.extensionsEnd;
  const data = Buffer.from(format, 'utf8');
  const room = alignUp(data.byteLength, 8);
  if (at + EXTENSION_HEADER_BYTES + room + EXTENSION_HEADER_BYTES > header.geometry.clusterSize) return;
  // behind the end mark nobody reads; with the mark's sector the extension is there, whole
  const tail = new Uint8Array(room + EXTENSION_HEADER_BYTES);
  tail.set(data);
  viewOf(tail).setUint32(room, EXTENSION_END);
  await store.edit([{ offset: at + EXTENSION_HEADER_BYTES, bytes: tail }]);
  const head = new Uint8Array(EXTENSION_HEADER_BYTES);
  viewOf(head).setUint32(0, EXTENSION_BACKING_FORMAT);
  viewOf(head).setUint32(4, data.byteLength);
  await store.edit([{ offset: at, bytes: head }]);
  header.extensions.push({ type: EXTENSION_BACKING_FORMAT, data, offset: at });
  header.extensionsEnd = at + EXTENSION_HEADER_BYTES + room;
  header.backingFormat = format;
}
