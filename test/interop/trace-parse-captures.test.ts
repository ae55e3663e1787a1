/** `quiesce trace parse` prints blkparse's bytes: all captures, blkparse's options. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { bothParse, captures, expectSameText } from '../support/blkparse.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { quiesce, run } from '../support/run.js';

const tmp = useTmp();
const ALL_FIELDS = 'X%a|%c|%C|%d|%D|%e|%m|%M|%n|%N|%p|%P|%s|%S|%t|%T|%5a|%-5a|%12S|%-12S|%3t|%-12t|%5q|%-5q|%-20C|%12C|%z|%-20z|%%|\\t\\b\\r%q\\n';
const OPTIONS = [
  [], ['-s', '--hash-by-name', '-q'], ['-a', 'write', '-a', 'issue', '-s'], ['-a', 'sync', '-A', '0x80', '-a', 'discard'],
  ['-w', '0.001:0.02'], ['-b', '3', '-w', '1'], ['-O'], ['-q', '-f', ALL_FIELDS], ['-F', 'Q,%a %S\\n', '-f', 'other %a\\n', '-F', 'U,%U\\n'],
];

peers('blkparse')('a capture prints as blkparse prints it', () => {
  test.each(['qemu-savevm', 'qemuio-rmw', 'synth-mixed'])('%s', async (name) => {
    for (const options of OPTIONS) await expectSameText(['-i', name, ...options], captures);
  });

  test('by path, by one of its files, from a directory, and several at once', async () => {
    await expectSameText(['-i', `${captures}/qemu-savevm`], '/');
    await expectSameText(['-i', 'qemu-savevm.blktrace.1'], captures);
    await expectSameText(['./qemu-savevm'], captures);
    await expectSameText(['-D', captures, 'synth-mixed'], '/');
    await expectSameText(['-i', 'qemu-savevm', '-i', 'qemuio-rmw', 'synth-mixed', '-s'], captures);
  });

  test('the times that requests waited; what blkparse cannot know is left out', async () => {
    // kernels without an I/O scheduler tell no insertion: blkparse takes what memory held for the time of it
    const withoutAccidents = (text: string): string => text.split('\n').map((line, index, lines) => (
      / I +[A-Z]+ /.test(lines[index - 1] ?? '') ? line : line.replace(/^(.* D +[A-Z]+ (?:\d+ \+ \d+ )?)\( *\d+\) /, '$1'))).join('\n');
    for (const name of ['qemu-savevm', 'qemuio-rmw']) {
      const { theirs, ours } = await bothParse(['-i', name, '-t', '-q'], captures);
      expect(ours.stdout).toBe(withoutAccidents(theirs.stdout));
    }
    const { theirs, ours } = await bothParse(['-i', 'synth-mixed', '-t', '-q'], captures);
    const unlikely = /^.* D {2}FW .*$\n/gm;
    expect(ours.stdout.replaceAll(unlikely, '')).toBe(theirs.stdout.replaceAll(unlikely, ''));
    expect(ours.stdout.match(unlikely)).toHaveLength(20);
    expect(ours.stdout).toMatch(/ D .*\( {3}32000\) \[fio\]/);
  });

  test('the text in a file, and the merged dump', async () => {
    for (const name of ['qemu-savevm', 'qemuio-rmw', 'synth-mixed']) {
      for (const options of [[], ['-O'], ['-M', '-a', 'write', '-w', '0:0.5']]) {
        const theirs = run('blkparse', ['-i', name, '-o', tmp('theirs.txt'), '-d', tmp('theirs.bin'), ...options], { cwd: captures });
        const ours = quiesce(['trace', 'parse', name, '-o', tmp('ours.txt'), '-d', tmp('ours.bin'), ...options], { cwd: captures });
        await Promise.all([theirs, ours]);
        expect(Buffer.compare(readFileSync(tmp('ours.bin')), readFileSync(tmp('theirs.bin')))).toBe(0);
        if (!options.includes('-O')) expect(Buffer.compare(readFileSync(tmp('ours.txt')), readFileSync(tmp('theirs.txt')))).toBe(0);
      }
    }
  });
});
