import { expect, test } from '@jest/globals';
import { formatJson, formatTable } from '../../../cli/output.mjs';
import { didYouMean } from '../../../cli/suggest.mjs';

test('tables align their columns', () => {
  const rows = [{ name: 'one', size: 5 }, { name: 'seventeen', size: 12_345 }];
  expect(formatTable(rows, [{ title: 'TAG', value: (row) => row.name }, { title: 'SIZE', align: 'right', value: (row) => row.size }]))
    .toBe('TAG         SIZE\none            5\nseventeen  12345\n');
});

test('a bigint is a number in JSON where it fits into one', () => {
  expect(JSON.parse(formatJson({ small: 5n, large: 2n ** 63n }))).toEqual({ small: 5, large: '9223372036854775808' });
});

test('suggestions are close words only', () => {
  expect(didYouMean('snapshto list', ['snapshot list', 'image info'])).toBe(" (did you mean 'snapshot list'?)");
  expect(didYouMean('mirror', ['image', 'demo'])).toBe('');
});
