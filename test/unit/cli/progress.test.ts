import { PassThrough } from 'node:stream';
import { expect, test } from '@jest/globals';
import { createProgress } from '../../../cli/progress.mjs';

function fakeTerminal(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 120, cursorTo: () => true, clearLine: () => true, moveCursor: () => true });
  let text = '';
  stream.on('data', (chunk: Buffer) => { text += chunk.toString(); });
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => text };
}

test('a terminal sees label, amount and rate', async () => {
  const { stream, text } = fakeTerminal(true);
  const progress = await createProgress(stream);
  progress.start(4096, 'saving RAM');
  progress.update(2048);
  progress.stop();
  progress.stop();
  expect(text()).toMatch(/saving RAM .*50%\s+2 KiB of 4 KiB\s+.*\/s\s+ETA/);
});

test('without a terminal nothing is written', async () => {
  const { stream, text } = fakeTerminal(false);
  const progress = await createProgress(stream);
  progress.start(null, 'x');
  progress.update(1);
  progress.stop();
  expect(text()).toBe('');
});
