import { expect, test } from '@jest/globals';
import { drawBars, shade } from '../../../../src/viewer/terminal/chart.js';
import { Grid } from '../../../../src/viewer/terminal/grid.js';

function bars(values: readonly number[], highest: number, height: number, ascii = false): string[] {
  const grid = new Grid(values.length, height, ascii);
  drawBars(grid, { left: 0, top: 0, width: values.length, height }, Float64Array.from(values), highest, 0);
  return grid.lines();
}

test('bars are as high as their values, in eighths of a row', () => {
  expect(bars([0, 1, 2, 4, 8], 8, 1)).toEqual([' ▁▂▄█']);
  expect(bars([0, 4, 8, 12, 16], 16, 2)).toEqual(['   ▄█', ' ▄███']);
});

test('the least value is seen, a value above the highest is not higher, and none is none', () => {
  expect(bars([0.0001, 99, NaN, 0], 8, 1)).toEqual(['▁█']);
  expect(bars([0, 0], 0, 1)).toEqual(['']);
});

test('in ASCII', () => {
  expect(bars([0, 1, 2, 3, 4], 4, 1, true)).toEqual([' .:=#']);
});

test('one is seen beside ten thousand, and the largest is full', () => {
  expect(shade(0, 10_000, false)).toEqual({ text: ' ', strength: 0 });
  expect(shade(1, 10_000, false).text).toBe('░');
  expect(shade(10_000, 10_000, false)).toEqual({ text: '█', strength: 1 });
  expect(shade(1, 1, true)).toEqual({ text: '@', strength: 1 });
});
