import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { openImage } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

peers('qemu-img')('a raw file whose last sector is not whole', () => {
  test('is a disk of whole sectors, as for QEMU: zeros until something is written there', async () => {
    const path = tmp('odd.raw');
    writeFileSync(path, Buffer.alloc(1000, 7));
    const theirs = JSON.parse(await runOk('qemu-img', ['info', '--output=json', '-f', 'raw', path])) as { 'virtual-size': number };
    const node = await openImage(path, { format: 'raw' });
    expect(node.length()).toBe(theirs['virtual-size']);
    const read = Buffer.alloc(1024, 1);
    await node.read(0, read);
    expect(read.equals(Buffer.concat([Buffer.alloc(1000, 7), Buffer.alloc(24)]))).toBe(true);
    expect(await node.blockStatus(1000, 24)).toMatchObject({ kind: 'zero', bytes: 24 });
    expect(statSync(path).size).toBe(1000);
    await node.write(1010, Buffer.alloc(14, 9));
    await node.close();
    expect(readFileSync(path).subarray(990)).toEqual(Buffer.concat([Buffer.alloc(10, 7), Buffer.alloc(10), Buffer.alloc(14, 9)]));
  });
});
