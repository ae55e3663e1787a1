/** Random records of all kinds, sensible or not, in both byte orders: the same text as blkparse's, from files and from a stream. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { blkparse, compileFormat, DEFAULT_BATCH, FORMAT_ACTIONS, type BlkparseOptions } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomTrace, writeTrace } from '../support/trace-random.js';

const tmp = useTmp();
const SEEDS = 25;
// %U is what memory held where a record has no such payload
const FORMAT = '%a|%P|%C|%s|%e|%p|%d|%N|%S|%D|%8s|%-10s|\\n';
const PLAIN: BlkparseOptions = {
  formats: new Map(), mask: -1, from: 0, to: Infinity, trackIos: false, perProcess: true, hashByName: false, quiet: false, dumpMessages: true, batch: DEFAULT_BATCH,
};
const VARIANTS: readonly (readonly [readonly string[], Partial<BlkparseOptions>])[] = [
  [['-s'], {}],
  [['-s', '-h', '-a', 'write'], { hashByName: true, mask: 2 }],
  [['-w', '1:3'], { perProcess: false, from: 1e9, to: 3e9 }],
  [['-q', '-f', FORMAT], { perProcess: false, quiet: true, formats: new Map(FORMAT_ACTIONS.map((action) => [action, compileFormat(FORMAT)])) }],
];

async function ours(inputs: readonly string[], options: BlkparseOptions): Promise<string> {
  const chunks: Buffer[] = [];
  await blkparse({ inputs, options, writeDump: null, write: (bytes) => Promise.resolve(void chunks.push(Buffer.from(bytes))) });
  return Buffer.concat(chunks).toString();
}

peers('blkparse')('random records', () => {
  test.each(Array.from({ length: SEEDS }, (_, index) => index + 1))('seed %i', async (seed) => {
    const trace = randomTrace(seed);
    writeTrace(tmp('x'), trace);
    for (const [args, changes] of VARIANTS) {
      const theirs = await run('blkparse', ['-i', tmp('x'), ...args]);
      expect(await ours([tmp('x')], { ...PLAIN, ...changes })).toBe(theirs.stdout.replaceAll(/^Input file .* added\n/gm, ''));
    }
    const streamed = await run('blkparse', ['-i', '-', '-s'], { input: readFileSync(tmp('x.all')) });
    const viaFifo = tmp('fifo');
    await run('mkfifo', [viaFifo]);
    const feeding = run('sh', ['-c', `cat '${tmp('x.all')}' > '${viaFifo}'`]);
    expect(await ours([viaFifo], PLAIN)).toBe(streamed.stdout);
    await feeding;
  });
});
