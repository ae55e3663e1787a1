/** Names that say more than a path, as qemu-img takes them. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, nodeImageInfo, openImage } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function images(): Promise<{ base: string; top: string; raw: string }> {
  const found = { base: tmp('base.qcow2'), top: tmp('top.qcow2'), raw: tmp('disk.raw') };
  await createImage(found.base, { format: 'qcow2', size: 2 ** 20 });
  await createImage(found.top, { format: 'qcow2', backingFile: 'base.qcow2', backingFormat: 'qcow2' });
  writeFileSync(found.raw, Buffer.alloc(65536, 1));
  return found;
}

const json = (value: unknown): string => `json:${JSON.stringify(value)}`;

peers('qemu-img')('names of images', () => {
  test('open the same trees, and are told in the same words', async () => {
    const { top, raw } = await images();
    const file = (filename: string): object => ({ driver: 'file', filename });
    const names = [
      json({ driver: 'qcow2', file: file(top) }),
      json({ file: file(top) }),
      json({ driver: 'raw', 'file.filename': raw, offset: 512 }),
      json({ driver: 'raw', file: file(raw), offset: 512, size: 1024 }),
      json({ driver: 'file', filename: raw }),
      json({ driver: 'null-co', size: 4096, 'read-zeroes': true }),
      json({ driver: 'null-aio' }),
      json({ driver: 'quorum', 'vote-threshold': 1, children: [{ driver: 'raw', file: file(raw) }, { driver: 'raw', file: file(raw) }] }),
      json({ driver: 'blkdebug', image: file(raw), align: 512, 'inject-error': [{ event: 'read_aio' }] }),
      json({ driver: 'blkverify', raw: file(raw), test: { driver: 'raw', file: file(raw) } }),
      `file:${top}`, `blkdebug::${top}`, `blkverify:${raw}:${raw}`,
    ];
    for (const name of names) {
      const theirs = await run('qemu-img', ['info', '-U', '--output=json', name]);
      expect({ name, stderr: theirs.stderr }).toEqual({ name, stderr: '' });
      await using node = await openImage(name, { readOnly: true, forceShare: true, backing: 'allow' });
      const ours = { ...await nodeImageInfo(node) };
      if (node.origin === null) ours['filename'] = name.slice('file:'.length);
      expect({ name, ...ours }).toEqual({ name, ...JSON.parse(theirs.stdout) as object });
    }
  });

  test('are refused with the same sentences', async () => {
    const { top, raw } = await images();
    const names = [
      'json:foo', 'json:[1]', 'json:', 'json:{}', json({ driver: 'zz' }), json({ filename: top }), json({ driver: 'qcow2' }),
      json({ driver: 'file', filename: raw, foo: 1 }), json({ driver: 'qcow2', file: { driver: 'file', filename: top }, foo: 1 }),
      json({ driver: 'raw', file: 'zz' }), json({ driver: 'raw', 'file.filename': raw, size: 1000 }), json({ driver: 'file', filename: `${raw}x` }),
      `blkdebug:${raw}x:${top}`, json({ driver: 'raw', 'file.filename': 'odd:name' }), json({ driver: 'raw', file: { driver: 'file', filename: raw }, 'read-only': 'maybe' }),
      json({ driver: 'raw', 'file.filename': raw, offset: 131072 }), json({ driver: 'copy-on-read', file: { driver: 'raw', 'file.filename': raw } }),
    ];
    for (const name of names) {
      const theirs = await run('qemu-img', ['info', '--output=json', name]);
      expect(theirs.code).toBe(1);
      const ours = await openImage(name, { readOnly: true, backing: 'allow' }).then(() => 'opened', (error: unknown) => (error as Error).message);
      expect(ours).toBe(theirs.stderr.trim().replace(/^qemu-img: /, ''));
    }
  });
});

test('a tree holds the locks of an image that is written', async () => {
  const { raw } = await images();
  await using node = await openImage(json({ driver: 'raw', file: { driver: 'file', filename: raw } }));
  await node.write(0, Buffer.alloc(10, 5));
  await expect(openImage(raw, { format: 'raw' })).rejects.toMatchObject({ code: 'LOCKED' });
});

test('an image names a tree as its backing file only where every backing file is allowed', async () => {
  const { raw } = await images();
  const overlay = tmp('overlay.qcow2');
  await createImage(overlay, { format: 'qcow2', size: 65536, backingFile: json({ driver: 'raw', file: { driver: 'file', filename: raw } }), backingUnchecked: true, backing: 'allow' });
  await expect(openImage(overlay, { readOnly: true })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  await using node = await openImage(overlay, { readOnly: true, backing: 'allow' });
  const found = Buffer.alloc(1);
  await node.read(1000, found);
  expect(found[0]).toBe(1);
});
