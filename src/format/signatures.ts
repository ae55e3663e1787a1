/**
 * What makes QEMU take the first sector of a file for an image of some format. A disk whose format was only guessed must
 * not be given such a start: whoever opened it the next time would believe it.
 */

const SECTOR = 512;
const QCOW = 'QFI\u00fb';
/** Whole signatures at the start. */
const STARTS: readonly string[] = [
  'COWD', 'KDMV', 'conectix', 'vhdxfile', 'QED\0', 'LUKS\u00ba\u00be\0\u0001',
  '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n',
];
const PARALLELS: readonly string[] = ['WithoutFreeSpace', 'WithouFreSpacExt'];
const PARALLELS_VERSION = 2;
const VDI_MAGIC = 0xbeda_107f;
const BOCHS: readonly (readonly [number, string])[] = [[0, 'Bochs Virtual HD Image\0'], [32, 'Redolog\0'], [48, 'Growing\0']];
const BOCHS_VERSIONS: readonly number[] = [0x1_0000, 0x2_0000];
/** A VMDK that is text: comments, lines of blanks, and then its version. */
const VMDK_DESCRIPTOR = /^(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n/;

/** Whether the bytes at the start of a disk, of which the first 512 count, look like an image of a format other than raw. */
export function looksFormatted(start: Uint8Array): boolean {
  const bytes = Buffer.alloc(SECTOR);
  bytes.set(start.subarray(0, SECTOR));
  const text = bytes.toString('latin1');
  if (text.startsWith(QCOW)) return bytes.readUInt32BE(QCOW.length) >= 1;
  return STARTS.some((signature) => text.startsWith(signature)) || bytes.readUInt32LE(0x40) === VDI_MAGIC ||
    (PARALLELS.some((signature) => text.startsWith(signature)) && bytes.readUInt32LE(16) === PARALLELS_VERSION) ||
    (BOCHS.every(([at, word]) => text.startsWith(word, at)) && BOCHS_VERSIONS.includes(bytes.readUInt32LE(64))) ||
    VMDK_DESCRIPTOR.test(text);
}
