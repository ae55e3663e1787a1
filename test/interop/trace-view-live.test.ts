/** A trace that comes through a pipe, or into a file, while it is looked at. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { launcher, repository } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { useTmux } from '../support/tmux.js';

peers('tmux')('quiesce trace view, live', () => {
  const tmp = useTmp();
  const terminal = useTmux();
  const stream = readFileSync(join(repository, 'fixtures', 'trace', 'qemu-savevm.ftrace-stream.bin'));
  /** In the middle of a record. */
  const HALF = 20_001;

  function halves(): void {
    writeFileSync(tmp('first'), stream.subarray(0, HALF));
    writeFileSync(tmp('rest'), stream.subarray(HALF));
  }

  test('a pipe: what has come is shown, keys come from the terminal, and the end of the pipe is no end', async () => {
    halves();
    const tmux = await terminal({ columns: 80, rows: 24 });
    await tmux.type('clear; echo before');
    await tmux.untilText(/^before\n\$/);
    await tmux.type(`(cat '${tmp('first')}'; while [ ! -e '${tmp('go')}' ]; do sleep 0.1; done; cat '${tmp('rest')}') | '${launcher}' trace view -`);
    const early = await tmux.untilText(/standard input {2}[1-9]\d+ requests .*LIVE/);
    expect(early.join('\n')).toContain('depth');
    const some = Number(/(\d+) requests/.exec(early[0]!)![1]);
    expect(some).toBeGreaterThan(10);
    expect(some).toBeLessThan(168);
    await tmux.keys('c');
    await tmux.untilText('by process');
    writeFileSync(tmp('go'), '');
    const late = await tmux.until('all requests, and no more to come', ([title = '']) => title.includes('168 requests') && !/live/i.test(title));
    expect(late.join('\n')).toContain('by process');
    await tmux.keys('q');
    await tmux.until('the prompt', (lines) => lines[0] === 'before' && lines.filter((line) => line.startsWith('$')).length >= 2);
  });

  test('a file that grows, with --follow', async () => {
    halves();
    const tmux = await terminal({ columns: 80, rows: 24 });
    await tmux.type(`cat '${tmp('first')}' > '${tmp('growing')}'; (while [ ! -e '${tmp('go')}' ]; do sleep 0.1; done; cat '${tmp('rest')}' >> '${tmp('growing')}') & '${launcher}' trace view --follow '${tmp('growing')}'`);
    const early = await tmux.untilText(/[1-9]\d+ requests .*LIVE/);
    expect(early[0]).not.toContain('168 requests');
    writeFileSync(tmp('go'), '');
    await tmux.untilText(/168 requests .*LIVE/);
    // a window that is panned stays where it is
    await tmux.keys('+', 'f');
    await tmux.untilText('LIVE');
    await tmux.keys('q');
    await tmux.until('the prompt', (lines) => lines.at(-1) !== undefined && !lines.join('').includes('q quit'));
  });
});
