/** Features we do not have are refused by name, for reading and for writing; a corrupt image is for reading only. */
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { openImage } from '../../src/index.js';
import { weReadAs } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const INCOMPATIBLE_LOW_BYTE = 79;
const CRYPT_METHOD_LOW_BYTE = 35;
const INCOMPATIBLE_HIGH_BYTE = 72;

async function makeImage(...options: string[]): Promise<string> {
  const path = tmp('image.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '4M']);
  return path;
}

function setByte(path: string, offset: number, value: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([value]), 0, 1, offset);
  closeSync(fd);
}

async function refuses(path: string, message: string): Promise<void> {
  const before = readFileSync(path);
  for (const options of [{}, { readOnly: true }, { forCheck: true }]) {
    await expect(openImage(path, options)).rejects.toMatchObject({ code: 'NOT_SUPPORTED', message: expect.stringContaining(message) });
  }
  expect(readFileSync(path).equals(before)).toBe(true);
}

peers('qemu-img', 'qemu-io')('refused by name', () => {
  test('extended L2 entries', async () => {
    await refuses(await makeImage('-o', 'extended_l2=on,cluster_size=128k'), 'features that this engine does not have: extended L2 entries');
  });

  test('an external data file', async () => {
    await refuses(await makeImage('-o', `data_file=${tmp('data.raw')},data_file_raw=on`), 'features that this engine does not have: external data file');
  });

  test('zstd compression', async () => {
    await refuses(await makeImage('-o', 'compression_type=zstd'), 'features that this engine does not have: compression type');
  });

  test('LUKS encryption', async () => {
    // qemu-img measures the processor to make one, and gives up where others use it: the header alone says it too
    const path = await makeImage();
    setByte(path, CRYPT_METHOD_LOW_BYTE, 2);
    await refuses(path, 'is encrypted (LUKS), which this engine does not have');
  });

  test('AES encryption', async () => {
    const path = await makeImage('--object', 'secret,id=key,data=abc', '-o', 'encrypt.format=aes,encrypt.key-secret=key');
    await refuses(path, 'is encrypted (AES), which this engine does not have');
  });

  test('an incompatible feature that nobody knows yet', async () => {
    const path = await makeImage();
    setByte(path, INCOMPATIBLE_HIGH_BYTE, 0x40);
    await refuses(path, 'unknown incompatible feature 62');
  });

  test('several, each by its name', async () => {
    const path = await makeImage('-o', 'extended_l2=on,cluster_size=128k,compression_type=zstd');
    await refuses(path, 'compression type, extended L2 entries');
  });

  test('writing to an image that QEMU marked corrupt, while reading works', async () => {
    const path = await makeImage();
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x55 0 1M', path]);
    setByte(path, INCOMPATIBLE_LOW_BYTE, 2);
    const before = readFileSync(path);
    await expect(openImage(path)).rejects.toMatchObject({ code: 'CORRUPT', message: `'${path}' is marked corrupt and can only be opened read-only or for repair` });
    const twin = new Twin(tmp('twin.raw'), 4 * 1024 * 1024);
    twin.write(0, Buffer.alloc(1024 * 1024, 0x55));
    await weReadAs(path, twin);
    expect(readFileSync(path).equals(before)).toBe(true);
    writeFileSync(path, before);
  });
});
