import { connect, createServer, Socket } from 'node:net';
import { expect, test } from '@jest/globals';
import { moveConnection } from '../../../src/nbd/direct-socket.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();

test('bytes go where the reader wants them, piece by piece, and nowhere while it is paused', async () => {
  const target = new Uint8Array(100);
  const inbox = new Uint8Array(10);
  let filled = 0;
  let ended = false;
  let moved: Socket | null = null;
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    moved = moveConnection(socket, {
      next: () => filled < 10 || filled === 100 ? inbox : target.subarray(filled, Math.min(filled + 33, 100)),
      received: (bytes, memory) => {
        if (memory === inbox) target.set(inbox.subarray(0, bytes), filled);
        filled += bytes;
        if (filled === 43) moved!.pause();
      },
    });
    moved!.on('end', () => { ended = true; });
    moved!.resume();
    moved!.write('moved');
  });
  await new Promise<void>((resolve) => { server.listen({ path: tmp('s') }, resolve); });
  const client = connect({ path: tmp('s'), allowHalfOpen: true });
  const greeting = await new Promise<Buffer>((resolve) => { client.once('data', resolve); });
  expect(greeting.toString()).toBe('moved');
  client.end(Uint8Array.from({ length: 100 }, (_, index) => index));
  const until = async (holds: () => boolean): Promise<void> => { while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5)); };
  await until(() => filled === 43);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect([filled, ended]).toEqual([43, false]);
  moved!.resume();
  await until(() => ended);
  expect([...target]).toEqual(Array.from({ length: 100 }, (_, index) => index));
  moved!.destroy();
  client.destroy();
  await new Promise((resolve) => { server.close(resolve); });
});

test('a socket without what is looked for is left as it is', () => {
  const socket = new Socket();
  expect(moveConnection(socket, { next: () => new Uint8Array(1), received: () => undefined })).toBeNull();
  expect(socket.destroyed).toBe(false);
});
