/**
 * Puts the bitmaps extension into a header that is in use. Whatever happens, the header can be read: what lies beyond the
 * first sector is written first, where nothing is read yet, and one write of the first sector (or of the sector with the
 * end mark) makes it valid.
 */
import { alignUp, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { BITMAP_EXTENSION_BYTES, encodeExtension, type BitmapExtension } from './bitmap-directory.js';
import { AUTOCLEAR_BITMAPS, EXTENSION_BITMAPS, EXTENSION_END, HEADER_FIELDS, type HeaderPatch, type HeaderStore } from './header.js';
import { SECTOR } from './layout.js';

const EXTENSION_HEADER_BYTES = 8;
const WHOLE_BYTES = EXTENSION_HEADER_BYTES + BITMAP_EXTENSION_BYTES;

/** Whether there is, or can be made, a place for the extension. */
export function hasRoomForBitmaps(store: HeaderStore): boolean {
  const slot = store.header.extensions.find(({ type }) => type === EXTENSION_BITMAPS);
  return slot !== undefined ? slot.data.byteLength === BITMAP_EXTENSION_BYTES : roomAtEnd(store) !== null;
}

/** Where the backing file name goes so that the extension fits; null where it cannot. */
function roomAtEnd(store: HeaderStore): { readonly nameTo: number | null } | null {
  const { geometry, extensionsEnd, backing } = store.header;
  const end = extensionsEnd + WHOLE_BYTES + EXTENSION_HEADER_BYTES;
  if (backing === null) return end <= geometry.clusterSize ? { nameTo: null } : null;
  if (end <= backing.offset) return { nameTo: null };
  const nameTo = alignUp(Math.max(end, backing.offset + backing.bytes), 8);
  return nameTo + backing.bytes <= geometry.clusterSize ? { nameTo } : null;
}

/** Makes the directory the image's, and the autoclear bit vouch for it. */
export async function switchBitmaps(store: HeaderStore, extension: BitmapExtension): Promise<void> {
  const data = encodeExtension(extension);
  const slot = store.header.extensions.find(({ type }) => type === EXTENSION_BITMAPS);
  if (slot !== undefined && slot.data.byteLength === BITMAP_EXTENSION_BYTES) {
    const patch = { offset: slot.offset + EXTENSION_HEADER_BYTES, bytes: data };
    // In one sector it is old or new; in two it may be neither, and nothing vouches for it meanwhile
    const last = patch.offset + data.byteLength - 1;
    if (Math.floor(patch.offset / SECTOR) !== Math.floor(last / SECTOR)) await vouch(store, false);
    await store.edit([patch]);
    slot.data = data;
    return vouch(store, true);
  }
  await append(store, data);
  await vouch(store, true);
}

/** No bitmap is left. */
export async function dropBitmaps(store: HeaderStore): Promise<void> {
  await vouch(store, false);
  const { header } = store;
  const index = header.extensions.findIndex(({ type }) => type === EXTENSION_BITMAPS);
  if (index < 0 || index !== header.extensions.length - 1) return;
  const [slot] = header.extensions.splice(index, 1);
  await store.edit([{ offset: slot!.offset, bytes: endMark() }]);
  header.extensionsEnd = slot!.offset;
}

async function append(store: HeaderStore, data: Uint8Array): Promise<void> {
  const room = roomAtEnd(store);
  const { header } = store;
  if (room === null) throw new BlockError('NO_SPACE', `the header of '${store.name}' has no room for bitmaps`, { node: store.name });
  if (room.nameTo !== null) await moveBackingName(store, room.nameTo);
  const at = header.extensionsEnd;
  // Behind the end mark nobody reads; with the mark's sector the extension is there, whole
  const tail = new Uint8Array(BITMAP_EXTENSION_BYTES + EXTENSION_HEADER_BYTES);
  tail.set(data);
  tail.set(endMark(), BITMAP_EXTENSION_BYTES);
  await store.edit([{ offset: at + EXTENSION_HEADER_BYTES, bytes: tail }]);
  const head = new Uint8Array(EXTENSION_HEADER_BYTES);
  viewOf(head).setUint32(0, EXTENSION_BITMAPS);
  viewOf(head).setUint32(4, BITMAP_EXTENSION_BYTES);
  await store.edit([{ offset: at, bytes: head }]);
  header.extensions.push({ type: EXTENSION_BITMAPS, data, offset: at });
  header.extensionsEnd = at + WHOLE_BYTES;
}

async function moveBackingName(store: HeaderStore, to: number): Promise<void> {
  const backing = store.header.backing!;
  const name = await store.readCluster(backing.offset, backing.bytes);
  const place: HeaderPatch = { offset: HEADER_FIELDS.backingOffset, bytes: new Uint8Array(8) };
  setU64(viewOf(place.bytes), 0, to);
  await store.edit([{ offset: to, bytes: name }, place]);
  store.header.backing = { offset: to, bytes: backing.bytes };
}

async function vouch(store: HeaderStore, wanted: boolean): Promise<void> {
  const { autoclear } = store.header;
  const next = wanted ? autoclear | AUTOCLEAR_BITMAPS : autoclear & ~AUTOCLEAR_BITMAPS;
  if (next !== autoclear) await store.setFeatures({ autoclear: next });
}

function endMark(): Uint8Array {
  const mark = new Uint8Array(EXTENSION_HEADER_BYTES);
  viewOf(mark).setUint32(0, EXTENSION_END);
  return mark;
}
