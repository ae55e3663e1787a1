/** QEMU boots a machine from our export: a boot sector of our own reads a sector, prints it, and writes it to the next. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockBackend, createImage, NbdServer, openImage } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const EXIT = 0x10;
const CODE = Buffer.from([
  [0x31, 0xc0], [0x8e, 0xd8], [0x8e, 0xc0], // ds = es = 0
  [0xb8, 0x01, 0x02], [0xb9, 0x02, 0x00], [0xba, 0x80, 0x00], [0xbb, 0x00, 0x7e], [0xcd, 0x13], // BIOS: read 1 sector, the second, to 7e00
  [0x72, 0x20], // failed: halt
  [0xbe, 0x00, 0x7e], [0xac], [0x84, 0xc0], [0x74, 0x04], [0xe6, 0xe9], [0xeb, 0xf7], // print it on port e9, up to a zero
  [0xb8, 0x01, 0x03], [0xb9, 0x03, 0x00], [0xba, 0x80, 0x00], [0xbb, 0x00, 0x7e], [0xcd, 0x13], // BIOS: write it to the third
  [0xb0, EXIT], [0xba, 0x01, 0x05], [0xee], [0xf4], [0xeb, 0xfd], // tell QEMU to end; halt
].flat());
const TEXT = 'read through NBD by a guest';

peers('qemu-system-x86_64', 'qemu-io')('a guest', () => {
  test.each(['raw', 'qcow2'] as const)('on a %s image of ours', async (format) => {
    const image = tmp(`disk.${format}`);
    await createImage(image, { format, size: 1024 * 1024 });
    const node = await openImage(image, { format });
    const boot = Buffer.alloc(1024);
    CODE.copy(boot);
    boot.writeUInt16LE(0xaa55, 510);
    boot.write(TEXT, 512);
    await node.write(0, boot);
    const server = new NbdServer();
    server.addExport({ name: 'disk', description: null, backend: new BlockBackend('', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
    await server.listen({ unix: tmp('s') });
    const machine = await run('qemu-system-x86_64', ['-machine', 'pc,accel=tcg', '-m', '32', '-nodefaults', '-display', 'none', '-debugcon', `file:${tmp('out')}`, '-device', 'isa-debug-exit,iobase=0x501,iosize=4',
      '-drive', `file=nbd+unix:///disk?socket=${tmp('s')},format=raw,if=ide`]);
    expect([machine.code, machine.stderr]).toEqual([EXIT * 2 + 1, '']);
    expect(readFileSync(tmp('out'), 'latin1')).toContain(TEXT);
    await server.close();
    await node.close();
    expect(await runOk('qemu-io', ['-r', '-f', format, '-c', `read -v 1024 ${TEXT.length}`, image])).toContain(TEXT.slice(0, 16).replaceAll(' ', '.'));
  });
});
