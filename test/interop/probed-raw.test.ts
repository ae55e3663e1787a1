/** A disk whose format was guessed to be raw cannot be made to look like another one, as with qemu-nbd: the same writes are refused, in the same words. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { NbdClient, openImage } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { standIn } from '../support/programs.js';
import { kill, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SECTOR = 512;

function sector(...parts: readonly (readonly [number, string | Uint8Array])[]): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  for (const [at, what] of parts) (typeof what === 'string' ? Buffer.from(what, 'latin1') : Buffer.from(what)).copy(bytes, at);
  return bytes;
}

const HEADERS: readonly (readonly [string, Buffer])[] = [
  ['qcow2', sector([0, 'QFI\u00fb\0\0\0\u0003'])], ['qcow', sector([0, 'QFI\u00fb\0\0\0\u0001'])], ['no qcow', sector([0, 'QFI\u00fb'])],
  ['a later qcow', sector([0, 'QFI\u00fb\0\0\0\u0009'])],
  ['VMDK 3', sector([0, 'COWD'])], ['VMDK 4', sector([0, 'KDMV'])], ['VMDK text', sector([0, '# Disk DescriptorFile\nversion=1\n'])],
  ['VMDK text of Windows', sector([0, '# Disk\r\n  \r\nversion=3\r\n'])], ['VMDK text with other words', sector([0, '# Disk\nsize=1\nversion=1\n'])],
  ['VMDK text of a later version', sector([0, 'version=4\n'])], ['VMDK text with an empty line', sector([0, '#\n\nversion=1\n'])],
  ['VDI', sector([0x40, Uint8Array.of(0x7f, 0x10, 0xda, 0xbe)])], ['VPC', sector([0, 'conectix'])], ['VHDX', sector([0, 'vhdxfile'])], ['QED', sector([0, 'QED\0'])],
  ['Parallels', sector([0, 'WithoutFreeSpace\u0002'])], ['Parallels 2', sector([0, 'WithouFreSpacExt\u0002'])], ['no Parallels', sector([0, 'WithoutFreeSpace\u0003'])],
  ['Bochs', sector([0, 'Bochs Virtual HD Image'], [32, 'Redolog'], [48, 'Growing'], [66, '\u0002'])], ['no Bochs', sector([0, 'Bochs Virtual HD Image'], [66, '\u0002'])],
  ['LUKS', sector([0, 'LUKS\u00ba\u00be\0\u0001'])], ['LUKS 2', sector([0, 'LUKS\u00ba\u00be\0\u0002'])],
  ['cloop', sector([0, '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n'])],
  ['a boot sector', sector([510, '\u0055\u00aa'])], ['zeros', sector()],
];

/** What becomes of each header at the start, and of what surrounds it; with what the program says. */
async function outcomes(program: string, name: string, ...args: string[]): Promise<object> {
  writeFileSync(tmp('disk'), Buffer.alloc(65_536, 1));
  const child = start(program, ['-t', '-k', tmp(name), ...args], { cwd: tmp() });
  let said = '';
  child.stderr!.on('data', (text: Buffer) => { said += text.toString(); });
  try {
    await appears(tmp(name));
    await using client = await NbdClient.open({ address: { type: 'unix', path: tmp(name) } });
    const wrote = (offset: number, bytes: Uint8Array): Promise<string> =>
      client.write(offset, bytes).then(() => 'written', (error: unknown) => (error as { readonly errno?: string }).errno ?? String(error));
    const headers: Record<string, string> = {};
    for (const [what, bytes] of HEADERS) headers[what] = await wrote(0, bytes);
    const header = HEADERS[0]![1];
    const more = { within: await wrote(0, Buffer.concat([header, Buffer.alloc(8192, 2)])), elsewhere: await wrote(SECTOR, header) };
    await client.flush();
    return { headers, more, minimumBlock: client.info.minimumBlock, found: readFileSync(tmp('disk')).subarray(0, 2 * SECTOR).toString('hex'), said };
  } finally {
    await kill(child, 'SIGTERM');
  }
}

peers('qemu-nbd')('a disk without a format is guarded as by qemu-nbd', () => {
  test.each([
    ['a name', 'disk'], ['a name with its protocol', 'file:disk'], ['options', '--image-opts', 'file.filename=disk'],
    ['a window', '-o', '512', 'disk'], ['nobody writes the disk itself', '-s', 'disk'], ['the format is told', '-f', 'raw', 'disk'],
  ] as [string, ...string[]][])('where %s leads to it', async (_what, ...args) => {
    const theirs = await outcomes('qemu-nbd', 'theirs', ...args);
    expect(await outcomes(standIn('qemu-nbd', tmp('bin')), 'ours', ...args)).toEqual(theirs);
  });
});

test('an image that is opened without its format is guarded, and one that is opened with it is not', async () => {
  writeFileSync(tmp('disk'), Buffer.alloc(65_536, 1));
  const header = HEADERS[0]![1];
  {
    await using guessed = await openImage(tmp('disk'));
    await expect(guessed.write(0, header)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', errno: 'EPERM' });
    await expect(guessed.write(0, Buffer.from('QFI'))).resolves.toBeUndefined();
    await expect(guessed.write(3, Buffer.from('\u00fb\0\0\0\u0003', 'latin1'))).rejects.toMatchObject({ errno: 'EPERM' });
    await guessed.write(100, Buffer.alloc(10, 3));
  }
  await using told = await openImage(tmp('disk'), { format: 'raw' });
  await told.write(0, header);
  expect(readFileSync(tmp('disk')).subarray(0, SECTOR)).toEqual(header);
});
