/** Pipes above an NBD node: what was moved to memory once stays there, whatever becomes of the connection. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { PipePool } from '../../../src/base/pipe-buffer.js';
import { BlockNode } from '../../../src/block/node.js';
import { openQcow2 } from '../../../src/format/qcow2/qcow2.js';
import { createImage, openImage } from '../../../src/image/open.js';
import { openFileDriver } from '../../../src/protocol/file.js';
import { openNbdDriver } from '../../../src/protocol/nbd.js';
import { dataAt, useScriptedServer, type ServedExport } from '../../support/nbd-script.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();
const KiB = 1024;
const SIZE = 1024 * KiB;

/** An export of twos; the first connection is lost with the first request, if asked for. */
function serve(options: ServedExport, loseFirst: boolean): Promise<unknown> {
  return listen(tmp('socket'), async (peer, connection) => {
    await peer.serve({ size: SIZE, ...options });
    for (;;) {
      const request = await peer.request();
      if (request.command === 2) return peer.close();
      if (loseFirst && connection === 0) {
        peer.socket.destroy();
        return;
      }
      peer.chunk(request, 1, dataAt(request.offset, new Uint8Array(request.bytes).fill(2)), true);
    }
  });
}

/** An overlay of ones in its first `ones` bytes over that export, copied as a mirror copies. */
async function copied(ones: number, reconnectDelayMs: number): Promise<Buffer> {
  await createImage(tmp('overlay'), { format: 'qcow2', size: SIZE });
  if (ones > 0) {
    await using image = await openImage(tmp('overlay'), { format: 'qcow2' });
    await image.write(0, new Uint8Array(ones).fill(1));
  }
  writeFileSync(tmp('to'), new Uint8Array(SIZE).fill(9));
  const backing = new BlockNode({ name: 'nbd', driver: await openNbdDriver({ address: { type: 'unix', path: tmp('socket') }, readOnly: true, reconnectDelayMs }), readOnly: true });
  const file = new BlockNode({ name: 'overlay', driver: await openFileDriver(tmp('overlay')) });
  await using from = new BlockNode({ name: 'from', driver: await openQcow2(file, { overrideBacking: async () => backing }) });
  await using to = new BlockNode({ name: 'to', driver: await openFileDriver(tmp('to')) });
  const pool = new PipePool();
  const buffer = new Uint8Array(SIZE);
  const pipe = pool.take(buffer)!;
  await from.read(0, buffer, 'background', pipe);
  await to.write(0, buffer, 0, 'background', pipe);
  pool.give(pipe);
  pool.close();
  return readFileSync(tmp('to'));
}

test('a part that is sent again goes where the other parts are', async () => {
  await serve({}, true);
  const found = await copied(256 * KiB, 5000);
  expect([found.indexOf(2), found.lastIndexOf(1), found.includes(9)]).toEqual([256 * KiB, 256 * KiB - 1, false]);
});

test('a server that takes less at once than is copied', async () => {
  await serve({ blocks: [512, 4096, 256 * KiB] }, false);
  expect((await copied(0, 0)).every((byte) => byte === 2)).toBe(true);
});
