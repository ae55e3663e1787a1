/** What QMP tells of a source: which image lies below it, past all filters, and whether its name means the same file here. */
import { expect, test } from '@jest/globals';
import { imageBelow, refuseRelative } from '../../../../src/job/mirror/sync-target.js';

function chain(...formats: readonly string[]): Readonly<Record<string, unknown>> | undefined {
  const [format, ...rest] = formats;
  const below = rest.length === 0 ? undefined : chain(...rest);
  return format === undefined ? undefined : { format, filename: formats.join('-'), ...below === undefined ? {} : { 'backing-image': below } };
}

test.each([
  [['qcow2', 'raw'], 'raw'],
  [['qcow2', 'qcow2', 'raw'], 'qcow2-raw'],
  [['throttle', 'qcow2', 'qcow2', 'raw'], 'qcow2-raw'],
  [['copy-on-read', 'throttle', 'qcow2', 'raw'], 'raw'],
  [['qcow2', 'copy-before-write', 'qcow2', 'raw'], 'qcow2-raw'],
  [['throttle', 'qcow2', 'throttle', 'raw'], 'raw'],
] as const)('%j: %s', (formats, below) => {
  expect(imageBelow(chain(...formats))).toMatchObject({ filename: below });
});

test.each([[[]], [['raw']], [['qcow2']], [['throttle', 'qcow2']], [['throttle', 'raw']]] as const)('%j lies on nothing', (formats) => {
  expect(imageBelow(chain(...formats))).toBeNull();
});

test.each([
  '/d/base', 'file:/d/base', 'nbd://host/export', 'nbd+unix:///x?socket=/d/s', 'null-co:', 'blkdebug::/d/base',
  'json:{"driver":"qcow2","file":{"driver":"file","filename":"/d/base"}}',
  'json:{"driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"/d/s"}}}',
])('%s is the same everywhere', async (name) => {
  await refuseRelative(name, 'disk');
});

test.each([
  'base', './base', 'd/base', 'file:base', 'nbd+unix:///x?socket=s', 'blkdebug::base',
  'json:{"driver":"qcow2","file":{"driver":"file","filename":"base"}}',
  'json:{"driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"s"}}}',
])('%s may be another file here', async (name) => {
  await expect(refuseRelative(name, 'disk')).rejects.toThrow(`the image below 'disk' is '${name}' to the process that has it open`);
});
