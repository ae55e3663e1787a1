/** Options that would have no effect on a daemon's nodes are refused, in one line, by all commands of jobs. */
import { expect, test } from '@jest/globals';
import { quiesce } from '../support/run.js';

test.each([
  [['commit', 'disk'], 'cache', ['none']], [['commit', 'disk'], 'backing', ['deny']], [['commit', 'disk'], 'format', ['raw']],
  [['stream', 'disk'], 'cache', ['none']], [['stream', 'disk'], 'backing', ['allow']],
  [['backup', 'disk', 'copy'], 'backing', ['allow']], [['backup', 'disk', 'copy'], 'cache', ['writeback']], [['backup', 'disk', 'copy'], 'existing', []],
  [['backup', 'disk', 'copy'], 'previous', ['a']], [['mirror', 'disk', 'copy'], 'cache', ['writeback']], [['mirror', 'disk', 'copy'], 'backing', ['allow']],
] as const)('%j --%s %j', async (words, option, values) => {
  const { code, stdout, stderr } = await quiesce([...words, '--daemon', '/nowhere', `--${option}`, ...values]);
  expect({ code, stdout, stderr }).toEqual({
    code: 2, stdout: '', stderr: `quiesce: --${option} is for files: a daemon has its nodes open (see quiesce ${words[0]} --help)\n`,
  });
});
