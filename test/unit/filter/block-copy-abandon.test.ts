/** A target that never answers holds what memory there is for copies; who waits for more of it is let go with the rest. */
import { expect, test } from '@jest/globals';
import { MemoryDriver } from '../../../src/index.js';
import { BlockChild } from '../../../src/block/child.js';
import { BlockCopy } from '../../../src/filter/block-copy.js';
import { JobLab, LabDisk, turn } from '../../support/job-lab.js';

const MiB = 1024 * 1024;
const PIECE = 16 * MiB;
const PIECES = 12;

test('copies that wait for memory end when their target is given up', async () => {
  const lab = new JobLab();
  const target = new LabDisk({ bytes: PIECES * PIECE, turns: 0 });
  let answer = (): void => undefined;
  const silence = new Promise<void>((resolve) => { answer = resolve; });
  target.before = () => silence;
  const [s, t] = [lab.add('s', new MemoryDriver({ bytes: PIECES * PIECE })), lab.add('t', target)];
  const copy = new BlockCopy({ source: new BlockChild('s', 'data', s), target: new BlockChild('t', 'data', t), clusterSize: 65_536 });
  const piece = (index: number): Promise<unknown> => copy.copy({ start: index * PIECE, end: (index + 1) * PIECE, ended: silence, settle: answer }, 'data', 'background');
  const copies = Array.from({ length: PIECES }, (_, index) => piece(index));
  while (target.inFlight < 8) await turn();
  copy.abandon();
  expect(await Promise.all(copies)).toEqual(Array.from({ length: PIECES }, () => expect.objectContaining({ error: expect.objectContaining({ code: 'CANCELLED' }) })));
  expect(target.inFlight).toBe(8);
  // the memory comes back with the answers, and to nobody who has gone
  answer();
  await copy.settled();
  expect(await piece(0)).toMatchObject({ error: { code: 'CANCELLED' } });
});
