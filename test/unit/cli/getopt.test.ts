import { describe, expect, test } from '@jest/globals';
import { getopt, type LongOption } from '../../../cli/getopt.mjs';
import { parseU64 } from '../../../cli/nbd/numbers.mjs';

const OPTIONS: readonly LongOption[] = [
  { name: 'fork', value: false }, { name: 'format', value: true, short: 'f' }, { name: 'read-only', value: false, short: 'r' }, { name: 'port', value: true, short: 'p' },
];

const read = (...argv: string[]): string[] => [...getopt(OPTIONS, argv)].map((item) => (item.kind === 'option' ? `${item.name}=${item.value} (${item.words})` : `${item.kind} ${item.word}`));

test('options long and short, in clusters, with values attached and apart, words between them', () => {
  expect(read('--format=raw', 'image', '-rf', 'qcow2', '-p10', '--port', '11', '--re', '-', '--', '-r')).toEqual([
    'format=raw (--format=raw)', 'word image', 'read-only=null (-rf)', 'format=qcow2 (-rf qcow2)', 'port=10 (-p10)', 'port=11 (--port 11)', 'read-only=null (--re)', 'word -', 'rest -r',
  ]);
});

test('an empty value is a value', () => {
  expect(read('--port=', '-p', '')).toEqual(['port= (--port=)', 'port= (-p )']);
});

describe('what is wrong is told as getopt_long(3) does', () => {
  test.each([
    [['--foo=1'], "unrecognized option '--foo=1'"],
    [['-rx'], "invalid option -- 'x'"],
    [['--fo'], "option '--fo' is ambiguous; possibilities: '--fork' '--format'"],
    [['--fork=1'], "option '--fork' doesn't allow an argument"],
    [['--port'], "option '--port' requires an argument"],
    [['-rp'], "option requires an argument -- 'p'"],
  ])('%j', (argv, message) => {
    expect(() => read(...argv)).toThrow(message);
  });
});

test('what stands before an error is there to act upon', () => {
  const items = getopt(OPTIONS, ['-r', '--foo']);
  expect(items.next().value).toMatchObject({ name: 'read-only' });
  expect(() => items.next()).toThrow('unrecognized');
});

test('numbers as strtoull(3) reads them', () => {
  expect(['10', '0x10', '010', ' +7', '-1', '0'].map(parseU64)).toEqual([10n, 16n, 8n, 7n, 2n ** 64n - 1n, 0n]);
  expect(['', '08', '1M', '0x', '18446744073709551616', 'x'].map(parseU64)).toEqual([null, null, null, null, null, null]);
});
