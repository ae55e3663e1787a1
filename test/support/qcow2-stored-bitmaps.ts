/** The bitmaps of a qcow2 file, read straight from the format's description, sharing no code with the engine. */
export interface StoredBitmap {
  readonly name: string;
  readonly inUse: boolean;
  readonly auto: boolean;
  readonly granularity: number;
  isDirty(granule: number): boolean;
}

export interface OwnedClusters {
  readonly offset: number;
  readonly bytes: number;
  readonly use: string;
}

export interface StoredBitmaps {
  readonly bitmaps: readonly StoredBitmap[];
  readonly owned: readonly OwnedClusters[];
}

const EXTENSION = 0x2385_2875;
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;

/** Nothing, where the autoclear bit does not vouch for them. */
export function readStoredBitmaps(content: Uint8Array): StoredBitmaps {
  const file = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  const extension = file.readUInt32BE(4) < 3 || file[95]! % 2 === 0 ? null : findExtension(file);
  if (extension === null) return { bitmaps: [], owned: [] };
  const clusterSize = 2 ** file.readUInt32BE(20);
  const bytes = Number(file.readBigUInt64BE(extension + 8));
  const directory = Number(file.readBigUInt64BE(extension + 16));
  const owned: OwnedClusters[] = [{ offset: directory, bytes, use: 'bitmap directory' }];
  const bitmaps: StoredBitmap[] = [];
  for (let at = directory; at < directory + bytes;) {
    const nameBytes = file.readUInt16BE(at + 18);
    const name = file.toString('utf8', at + 24, at + 24 + nameBytes);
    const table = Number(file.readBigUInt64BE(at));
    const entries = Array.from({ length: file.readUInt32BE(at + 8) }, (_, index) => file.readBigUInt64BE(table + index * 8));
    owned.push({ offset: table, bytes: entries.length * 8, use: `table of bitmap ${name}` });
    entries.forEach((entry, index) => {
      if ((entry & OFFSET_MASK) !== 0n) owned.push({ offset: Number(entry), bytes: clusterSize, use: `part ${index} of bitmap ${name}` });
    });
    const flags = file.readUInt32BE(at + 12);
    bitmaps.push({
      name, inUse: flags % 2 === 1, auto: Math.floor(flags / 2) % 2 === 1, granularity: 2 ** file[at + 17]!,
      isDirty: (granule) => {
        const entry = entries[Math.floor(granule / (clusterSize * 8))];
        if (entry === undefined) throw new Error(`bitmap ${name} has no granule ${granule}`);
        if ((entry & OFFSET_MASK) === 0n) return entry === 1n;
        const byte = file[Number(entry) + Math.floor((granule % (clusterSize * 8)) / 8)] ?? 0;
        return Math.floor(byte / 2 ** (granule % 8)) % 2 === 1;
      },
    });
    at += Math.ceil((24 + nameBytes) / 8) * 8;
  }
  if (bitmaps.length !== file.readUInt32BE(extension)) throw new Error(`the header counts ${file.readUInt32BE(extension)} bitmaps, the directory has ${bitmaps.length}`);
  return { bitmaps, owned };
}

function findExtension(file: Buffer): number | null {
  for (let at = file.readUInt32BE(100); ;) {
    const type = file.readUInt32BE(at);
    if (type === EXTENSION) return at + 8;
    if (type === 0) return null;
    at += 8 + Math.ceil(file.readUInt32BE(at + 4) / 8) * 8;
  }
}
