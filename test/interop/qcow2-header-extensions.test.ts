/** Header extensions and compatible feature bits that we do not know survive whatever we write. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { Random } from '../../src/index.js';
import { allAgree, snapshotId, snapshotsOf, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByQemu, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const SIZE = 4 * 1024 * 1024;
const COMPATIBLE = 80;
const HEADER_LENGTH = 100;
const UNKNOWN_TYPE = 0x5175_6965;
const PAYLOAD = Buffer.from('an extension of tomorrow');

function editHeader(path: string, edit: (header: Buffer) => void): Buffer {
  const header = Buffer.alloc(4096);
  const fd = openSync(path, 'r+');
  readSync(fd, header, 0, header.byteLength, 0);
  edit(header);
  writeSync(fd, header, 0, header.byteLength, 0);
  closeSync(fd);
  return header;
}

/** Walks the extensions to their end mark. */
function extensions(header: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = header.readUInt32BE(HEADER_LENGTH); ; ) {
    const [type, length] = [header.readUInt32BE(at), header.readUInt32BE(at + 4)];
    if (type === 0) return found.set(0, header.subarray(at, at + 8));
    found.set(type, Buffer.from(header.subarray(at + 8, at + 8 + length)));
    at += 8 + Math.ceil(length / 8) * 8;
  }
}

function addUnknownExtension(header: Buffer): void {
  const end = extensions(header).get(0)!.byteOffset - header.byteOffset;
  header.writeUInt32BE(UNKNOWN_TYPE, end);
  header.writeUInt32BE(PAYLOAD.byteLength, end + 4);
  PAYLOAD.copy(header, end + 8);
}

peers('qemu-img', 'qemu-io')('unknown parts of the header', () => {
  test('survive writes, snapshots and growing by us, and QEMU still takes the image', async () => {
    const path = tmp('image.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path, String(SIZE)]);
    editHeader(path, (header) => {
      addUnknownExtension(header);
      header.writeUInt32BE(0x4000_0000, COMPATIBLE);
    });
    const twin = new Twin(tmp('twin.raw'), SIZE);
    const steps = randomSteps(new Random(1), SIZE, 4096, 12);
    await withImage(path, {}, async (node) => {
      await stepsByUs(node, steps);
      await node.drained(() => snapshotsOf(node).create({ name: 'one', vmStateSize: 0, dateSeconds: 1, dateNanoseconds: 2 }));
      await node.drained(() => snapshotsOf(node).delete(snapshotId(node, 'one')));
    });
    for (const step of steps) twin.apply(step, 4096);
    const header = editHeader(path, () => {});
    expect(header.readUInt32BE(COMPATIBLE)).toBe(0x4000_0000);
    expect(extensions(header).get(UNKNOWN_TYPE)).toEqual(PAYLOAD);
    await allAgree(path, twin);
    const theirs = randomSteps(new Random(2), SIZE, 4096, 6);
    await stepsByQemu(path, theirs);
    for (const step of theirs) twin.apply(step, 4096);
    await allAgree(path, twin);
  });
});
