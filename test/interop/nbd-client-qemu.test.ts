/** Our client on qemu-nbd and qemu-storage-daemon: their images, bitmaps and limits, and their sudden ends. */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, imageInfo, NbdClient, nbdServerFacts, nodeFilename, openBlockdev, openImage, openNbdDriver, reopenBlockdevs } from '../../src/index.js';
import { qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();
const address = (): { type: 'unix'; path: string } => ({ type: 'unix', path: tmp('socket') });

peers('qemu-nbd', 'qemu-img', 'qemu-io')('on qemu-nbd', () => {
  test('a qcow2 image over NBD is an image: info, check, snapshots, writes', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk'), '64M']);
    await runOk('qemu-io', ['-c', 'write -P 7 1M 1M', tmp('disk')]);
    await runOk('qemu-img', ['snapshot', '-c', 'one', tmp('disk')]);
    // the file of the image itself is what is exported; it does not grow by NBD, so there must be room
    execFileSync('truncate', ['-s', '16M', tmp('disk')]);
    const server = await start('qemu-nbd', qemuNbdArgs(tmp('socket'), tmp('disk')), tmp('socket'));
    const uri = `nbd+unix:///?socket=${tmp('socket')}`;
    const image = await openImage(uri);
    expect(image.driver.formatName).toBe('qcow2');
    expect((await imageInfo(image, uri))['virtual-size']).toBe(64 * 1024 * 1024);
    expect(image.driver.snapshots!.list().map(({ name }) => name)).toEqual(['one']);
    const buffer = new Uint8Array(1024 * 1024);
    await image.read(1024 * 1024, buffer);
    expect(buffer.every((byte) => byte === 7)).toBe(true);
    await image.write(5 * 1024 * 1024, new Uint8Array(100_000).fill(9));
    expect(await image.driver.check!({})).toMatchObject({ corruptions: 0 });
    await image.close();
    await server.stop();
    await runOk('qemu-io', ['-r', '-c', 'read -P 9 5M 100000', '-c', 'read -P 7 1M 1M', tmp('disk')]);
    await runOk('qemu-img', ['check', '-q', tmp('disk')]);
  });

  test('a dirty bitmap and the allocation depth as block status', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('base'), '1M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('base'), '-F', 'qcow2', tmp('disk')]);
    await runOk('qemu-img', ['bitmap', '--add', '-g', '64K', tmp('disk'), 'b0']);
    await runOk('qemu-io', ['-c', 'write 128K 64K', tmp('disk')]);
    await start('qemu-nbd', ['-f', 'qcow2', '-t', '-e', '8', '-A', '-B', 'b0', '-k', tmp('socket'), tmp('disk')], tmp('socket'));
    const facts = await nbdServerFacts({ address: address() });
    expect(facts.exports[0]!.contexts).toEqual(['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b0']);
    await using client = await NbdClient.open({ address: address(), contexts: facts.exports[0]!.contexts });
    const all = 1024 * 1024;
    expect(await client.blockStatus(0, all, 'qemu:dirty-bitmap:b0')).toEqual([{ bytes: 131_072, flags: 0 }, { bytes: 65_536, flags: 1 }, { bytes: all - 196_608, flags: 0 }]);
    expect((await client.blockStatus(0, all, 'qemu:allocation-depth')).map(({ flags }) => flags)).toEqual([0, 1, 0]);
    const driver = await openNbdDriver({ address: address(), dirtyBitmap: 'qemu:dirty-bitmap:b0', readOnly: true });
    expect(await driver.blockStatus(0, all)).toMatchObject({ kind: 'data', bytes: 131_072 });
    await driver.close();
    await expect(openNbdDriver({ address: address(), dirtyBitmap: 'qemu:dirty-bitmap:none', readOnly: true })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('a read-only export is refused to a writer, and taken by auto-read-only', async () => {
    writeFileSync(tmp('disk'), new Uint8Array(65_536));
    await start('qemu-nbd', qemuNbdArgs(tmp('socket'), tmp('disk'), '-r', '-x', 'disk'), tmp('socket'));
    await expect(openNbdDriver({ address: address(), exportName: 'disk' })).rejects.toMatchObject({ code: 'READ_ONLY' });
    await expect(openNbdDriver({ address: address(), exportName: 'other' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const graph = new BlockGraph();
    const options = { driver: 'nbd', server: { type: 'unix', path: tmp('socket') }, export: 'disk' };
    await expect(openBlockdev(graph, { ...options, 'node-name': 'n' })).rejects.toMatchObject({ code: 'READ_ONLY' });
    const node = await openBlockdev(graph, { ...options, 'node-name': 'n', 'auto-read-only': true, 'reconnect-delay': 3 });
    expect([node.readOnly, node.name]).toEqual([true, `nbd+unix:///disk?socket=${tmp('socket')}`]);
    await expect(reopenBlockdevs(graph, [{ ...options, 'node-name': 'n', 'read-only': false, 'reconnect-delay': 3 }])).rejects.toMatchObject({ code: 'READ_ONLY' });
    const window = await openBlockdev(graph, { driver: 'raw', offset: 0, size: 512, file: { ...options, 'read-only': true }, 'node-name': 'w', 'read-only': true });
    const [ours, qemus] = [nodeFilename(window), (await runOk('qemu-img', ['info', '-U', '--output=json', '--image-opts',
      `driver=raw,offset=0,size=512,file.driver=nbd,file.server.type=unix,file.server.path=${tmp('socket')},file.export=disk`]))];
    const parse = (name: string): unknown => JSON.parse(name.replace(/^json:/, ''), (_key, value: unknown) => typeof value === 'number' ? String(value) : value);
    expect(parse(ours)).toEqual(parse((JSON.parse(qemus) as { filename: string }).filename));
    await window.close();
    await node.close();
  });

  test('killed and started again in the middle of writes: with a reconnect delay nobody notices', async () => {
    writeFileSync(tmp('disk'), new Uint8Array(4 * 1024 * 1024));
    const args = qemuNbdArgs(tmp('socket'), tmp('disk'));
    const first = await start('qemu-nbd', args, tmp('socket'));
    await using client = await NbdClient.open({ address: address(), connections: 2, reconnectDelayMs: 20_000 });
    let written = 0;
    const writers = Array.from({ length: 8 }, async (_, writer) => {
      for (let round = 0; round < 64; round++, written++) await client.write((round * 8 + writer) * 8192, new Uint8Array(8192).fill(1 + (round * 8 + writer) % 250));
    });
    while (written < 100) await new Promise((resolve) => setImmediate(resolve));
    await first.stop('SIGKILL');
    const second = await start('qemu-nbd', args, tmp('socket'));
    await Promise.all(writers);
    await client.flush();
    const back = new Uint8Array(4 * 1024 * 1024);
    await client.read(0, back);
    for (let block = 0; block < 512; block++) {
      expect(back.subarray(block * 8192, block * 8192 + 8192).every((byte) => byte === 1 + block % 250)).toBe(true);
    }
    await second.stop();
    expect(existsSync(tmp('disk'))).toBe(true);
  });
});

peers('qemu-storage-daemon')('on qemu-storage-daemon', () => {
  test('many connections share one disk, and each sees what the others have flushed', async () => {
    writeFileSync(tmp('disk'), new Uint8Array(1024 * 1024));
    await start('qemu-storage-daemon', [
      '--blockdev', `file,node-name=f,filename=${tmp('disk')}`, '--nbd-server', `addr.type=unix,addr.path=${tmp('socket')}`,
      '--export', 'nbd,id=e,node-name=f,name=disk,writable=on',
    ], tmp('socket'));
    await using client = await NbdClient.open({ address: address(), exportName: 'disk', connections: 4 });
    expect([client.canMultiConn, client.connections]).toEqual([true, 4]);
    await Promise.all(Array.from({ length: 64 }, (_, index) => client.write(index * 16_384, new Uint8Array(16_384).fill(index + 1))));
    await client.flush();
    await Promise.all(Array.from({ length: 64 }, async (_, index) => {
      const buffer = new Uint8Array(16_384);
      await client.read(index * 16_384, buffer);
      expect(buffer.every((byte) => byte === index + 1)).toBe(true);
    }));
    await client.writeZeroes(0, 1024 * 1024);
    expect((await client.blockStatus(0, 1024 * 1024))[0]).toEqual({ bytes: 1024 * 1024, flags: 3 });
  });
});
