/** A stream that goes on is printed as it comes, and Ctrl-C ends it with its summary, as blkparse does. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { captures } from '../support/blkparse.js';
import { launcher, start } from '../support/run.js';

test('events come before the stream ends, the summary on SIGINT', async () => {
  const child = start(launcher, ['trace', 'parse', '-']);
  let [text, complaints] = ['', ''];
  child.stdout!.on('data', (data: Buffer) => { text += data.toString(); });
  child.stderr!.on('data', (data: Buffer) => { complaints += data.toString(); });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  // one CPU: nothing is held back for another's
  child.stdin!.write(readFileSync(join(captures, 'qemu-savevm.blktrace.1')));
  while (text.split('\n').length < 800) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(text).not.toContain('CPU1');
  child.kill('SIGINT');
  expect(await ended).toBe(0);
  expect(text).toMatch(/\nCPU1 \(7,0\):\n[^]*\nEvents \(7,0\): 811 entries\nSkips: 0 forward \(0 - {3}0\.0%\)\n$/);
  expect(complaints).toBe('');
});
