import { expect, test } from '@jest/globals';
import { bytes, count, moment, percent, plural, span } from '../../../../src/viewer/terminal/numbers.js';

test('spans', () => {
  expect([0, 850, 999.6, 12_345, 4_050_000, 2.5e9, 200e9, NaN].map(span)).toEqual(['0 ns', '850 ns', '1.00 µs', '12.3 µs', '4.05 ms', '2.50 s', '3.33 min', '-']);
});

test('moments have as many decimals as tell them apart', () => {
  expect([moment(1.5e9, 1e8), moment(1.5e9, 1e3), moment(1.5e9, 0), moment(1.5e9, 10e9)]).toEqual(['1.5', '1.500000', '1.500000000', '2']);
});

test('bytes, counts, parts', () => {
  expect([0, 512, 4096, 20_992, 1_572_864, 20 * 2 ** 30].map(bytes)).toEqual(['0B', '512B', '4K', '20.5K', '1.50M', '20G']);
  expect([0, 950, 12_345, 4_050_000].map(count)).toEqual(['0', '950', '12.3k', '4.05M']);
  expect([plural(1, 'request'), plural(2, 'request')]).toEqual(['1 request', '2 requests']);
  expect([percent(1, 3), percent(1, 1000), percent(0, 5), percent(1, 0)]).toEqual(['33%', '<1%', '0%', '-']);
});
