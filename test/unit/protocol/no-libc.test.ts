/** The engine without koffi. This file has its own module registry, so nothing has asked for host calls before. */
import fs from 'node:fs';
import { expect, test } from '@jest/globals';
import { capabilities, lockedElsewhere } from '../../../src/base/libc.js';
import { BlockNode } from '../../../src/block/node.js';
import { openFileDriver } from '../../../src/protocol/file.js';
import { useTmp } from '../../support/tmp.js';

process.env['QUIESCE_NO_LIBC'] = '1';
const tmp = useTmp();

test('capabilities say why they are missing, and a call without them is a bug', () => {
  expect(capabilities()).toEqual({
    locks: false, seekData: false, punchHole: false, zeroRange: false, ioctl: false, noWait: false, whyNot: 'QUIESCE_NO_LIBC=1 turns host calls off',
  });
  expect(() => lockedElsewhere(0, 0)).toThrow('internal error');
});

test('images open read-only, for writing only with locking=off, and with locking=on not at all', async () => {
  const path = tmp('image');
  fs.writeFileSync(path, 'content');
  await expect(openFileDriver(path)).rejects.toMatchObject({
    code: 'NOT_SUPPORTED',
    message: `Could not open '${path}': image locks are not available (QUIESCE_NO_LIBC=1 turns host calls off); locking=off opens it without them`,
  });
  await expect(openFileDriver(path, { create: true })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  await expect(openFileDriver(path, { readOnly: true, locking: 'on' })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  expect(fs.readFileSync(path, 'utf8')).toBe('content');
  await (await openFileDriver(path, { readOnly: true })).close();
  await (await openFileDriver(path, { locking: 'off' })).close();
});

test.each([false, true])('I/O works, with zeros written out and nothing known of holes (O_DIRECT: %s)', async (direct) => {
  const driver = await openFileDriver(tmp('image'), { create: true, locking: 'off', direct });
  await using node = new BlockNode({ name: 'image', driver });
  await node.write(0, new Uint8Array(20_480).fill(1));
  await node.writeZeroes(1000, 30_000);
  await node.discard(0, 100);
  const back = new Uint8Array(node.length());
  await node.read(0, back);
  expect(back.findIndex((byte) => byte === 0)).toBe(1000);
  expect(back.subarray(1000).every((byte) => byte === 0)).toBe(true);
  expect(await node.blockStatus(0, 20_480)).toEqual({ kind: 'data', bytes: 20_480, hostOffset: 0 });
});
