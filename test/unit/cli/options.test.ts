import { describe, expect, test } from '@jest/globals';
import { defineCommand, UsageError, type CommandSpec, type ParsedArgs } from '../../../cli/command.mjs';
import { commandHelp } from '../../../cli/help.mjs';
import { interpret, scan } from '../../../cli/options.mjs';
import { scanWithYargs } from '../../../cli/yargs-scan.mjs';

const { spec } = defineCommand({
  description: 'Makes an image.',
  positionals: { image: { help: 'the file' }, tag: { help: 'the name' }, size: { type: 'size', optional: true, help: 'bytes' } },
  options: {
    'vm-state': { type: 'string', value: 'SRC', help: 'RAM state' },
    format: { type: 'string', alias: 'f', choices: ['raw', 'qcow2'], default: 'qcow2', help: 'format' },
    depth: { type: 'number', alias: 'd', min: 1, max: 64, default: 8, help: 'writers' },
    'chunk-size': { type: 'size', default: 1_048_576, help: 'bytes of a chunk' },
    also: { type: 'string', array: true, value: 'IMAGE', help: 'more images' },
    json: { type: 'boolean', help: 'JSON' },
    force: { type: 'boolean', alias: 'U', help: 'share' },
  },
  examples: [{ line: 'quiesce x a.qcow2 t', does: 'make one' }],
  run: async (args) => {
    // the types follow from the description; this compiles only as long as they do
    const typed: { image: string; size: number | undefined; format: 'raw' | 'qcow2'; depth: number; also: readonly string[]; vmState: string | undefined; json: boolean } = args;
    return typed.depth;
  },
});

const parsers: readonly [string, (spec: CommandSpec, argv: readonly string[]) => Promise<ParsedArgs>][] = [
  ['the small parser', async (of, argv) => interpret(of, scan(of, argv))],
  ['yargs', async (of, argv) => interpret(of, await scanWithYargs(of, argv))],
];

describe.each(parsers)('%s', (_, parse) => {
  const of = (line: string): Promise<ParsedArgs> => parse(spec, line.split(' '));

  test('fills defaults', async () => {
    expect(await of('a.qcow2 tag')).toEqual({
      image: 'a.qcow2', tag: 'tag', size: undefined, vmState: undefined, format: 'qcow2', depth: 8, chunkSize: 1_048_576, also: [], json: false, force: false,
    });
  });

  test.each([
    ['a t 10G', { size: 10 * 1024 ** 3 }],
    ['--format raw a t', { format: 'raw', image: 'a' }],
    ['--format=raw a t', { format: 'raw' }],
    ['a t -f raw', { format: 'raw' }],
    ['a t -fraw', { format: 'raw' }],
    ['a t -f=raw', { format: 'raw' }],
    ['a t -d 3 --depth 4', { depth: 4 }],
    ['a t --chunk-size 64K', { chunkSize: 65536 }],
    ['a t --vm-state -', { vmState: '-' }],
    ['a t --vm-state=-x', { vmState: '-x' }],
    ['a t --vm-state=a=b', { vmState: 'a=b' }],
    ['a t --also b c', { also: ['b', 'c'] }],
    ['--also b --json a t', { also: ['b'], image: 'a', json: true }],
    ['a t --also b --also c', { also: ['b', 'c'] }],
    ['--also b -- a t', { also: ['b'], image: 'a', tag: 't' }],
    ['-- --json -U', { image: '--json', tag: '-U', json: false, force: false }],
    ['a 007', { tag: '007' }],
    ['a -5', { tag: '-5' }],
    ['-U a t --json', { force: true, json: true }],
    ['a t --vm-state unix:/x.y', { vmState: 'unix:/x.y' }],
  ])('%s', async (line, expected) => {
    expect(await of(line)).toMatchObject(expected);
  });

  test.each([
    ['a', 'TAG is missing'],
    ['--also b a t', 'IMAGE is missing (all words after --also are its values, so it comes last)'],
    ['a t 1G more', "unexpected argument 'more'"],
    ['a t 1X', "SIZE: expected a size, got '1X' (use a size like 512, 64K, 1.5M or 10G)"],
    ['a t --jsn', "unknown option '--jsn' (did you mean '--json'?)"],
    ['a t -z', "unknown option '-z'"],
    ['a t --vm-state', "option '--vm-state' needs a value: --vm-state SRC"],
    ['a t --vm-state --json', "option '--vm-state' needs a value: --vm-state SRC"],
    ['a t -f', "option '--format' needs a value: --format raw|qcow2"],
    ['a t --also', "option '--also' needs a value: --also IMAGE"],
    ['a t --format vdi', "--format: expected one of raw, qcow2, got 'vdi'"],
    ['a t --depth 0', '--depth: expected 1 to 64, got 0'],
    ['a t --depth 1.5', "--depth: expected a whole number, got '1.5'"],
    ['a t --chunk-size big', "--chunk-size: expected a size, got 'big' (use a size like 512, 64K, 1.5M or 10G)"],
    ['a t --constructor', "unknown option '--constructor'"],
  ])('refuses %s', async (line, message) => {
    await expect(of(line)).rejects.toEqual(new UsageError(message));
  });
});

test('help names arguments, options with defaults, and examples', () => {
  const help = commandHelp('x', spec);
  expect(help).toContain('Usage: quiesce x IMAGE TAG [SIZE] [OPTIONS]');
  expect(help).toMatch(/--vm-state SRC {2,}RAM state/);
  expect(help).toMatch(/-f, --format raw\|qcow2 {2,}format \(default qcow2\)/);
  expect(help).toMatch(/--also IMAGE\.\.\. {2,}more images/);
  expect(help).toContain('# make one\n  quiesce x a.qcow2 t');
});
