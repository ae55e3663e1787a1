/** What the shell is offered after the words that were typed. */
import { expect, test } from '@jest/globals';
import { COMMANDS } from '../../../cli/commands.mjs';
import { complete } from '../../../cli/complete.mjs';

const offered = (...words: string[]): Promise<readonly string[]> => complete(COMMANDS, ['quiesce', ...words]);

test('first words, and the verbs of a group', async () => {
  expect(await offered('')).toEqual(expect.arrayContaining(['mirror', 'commit', 'stream', 'backup', 'job', 'snapshot', '--help']));
  expect(await offered('mi')).toEqual(['mirror']);
  expect(await offered('job', '')).toEqual(['list', 'show', 'watch', 'pause', 'resume', 'complete', 'finalize', 'cancel', 'set-speed', 'change', 'dismiss']);
  expect(await offered('job', 'set')).toEqual(['set-speed']);
  expect(await offered('trace', '')).toEqual(expect.arrayContaining(['view', 'serve', 'parse']));
  expect(await offered('trace', 'view', '--color', '')).toEqual(['auto', 'always', 'never']);
  expect(await offered('trace', 'view', '')).toEqual([]);
  expect(await offered('nonsense', '')).toEqual([]);
});

test('options, and what they may be', async () => {
  expect(await offered('mirror', '--')).toEqual(expect.arrayContaining(['--daemon', '--qmp', '--pivot', '--verify', '--deadline', '--throttle-below', '--forecast', '--help']));
  for (const command of ['commit', 'stream', 'backup']) expect(await offered(command, 'disk.qcow2', '--d')).toEqual(['--daemon']);
  expect(await offered('job', 'change', 'm', '--copy-mode', '')).toEqual(['auto', 'background', 'write-blocking']);
  expect(await offered('mirror', '--copy-mode', 'w')).toEqual(['write-blocking']);
  expect(await offered('mirror', '-O', '')).toEqual(['qcow2', 'raw']);
});

test('files where nothing else fits', async () => {
  expect(await offered('mirror', '')).toEqual([]);
  expect(await offered('mirror', '--daemon', '')).toEqual([]);
  expect(await offered('mirror', '--verify', '')).toEqual([]);
});

test('every command has something to offer', async () => {
  for (const path of Object.keys(COMMANDS)) expect(await offered(...path.split(' '), '--hel')).toEqual(['--help']);
});
