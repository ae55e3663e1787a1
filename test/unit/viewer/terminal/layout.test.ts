import { describe, expect, test } from '@jest/globals';
import type { Rect } from '../../../../src/viewer/terminal/grid.js';
import { layoutOf, SMALLEST, type Layout } from '../../../../src/viewer/terminal/layout.js';

function panels({ title, findings, map, axis, heat, lines, legend, details, requests, keys }: Layout): Rect[] {
  return [title, findings, map, axis, heat, ...lines, legend, details, ...requests === null ? [] : [requests], keys].filter(({ width, height }) => width > 0 && height > 0);
}

describe('every size from the smallest on', () => {
  const sizes = Array.from({ length: 60 }, (_, at) => ({ columns: SMALLEST.columns + at * 4, rows: SMALLEST.rows + at }));

  test.each([0, 1, 9])('with %d findings: each cell belongs to one panel, and each panel is there', (findings) => {
    for (const { columns, rows } of [...sizes, ...sizes.map(({ columns }, at) => ({ columns, rows: sizes.at(-1 - at)!.rows }))]) {
      for (const table of [false, true]) {
        const layout = layoutOf(columns, rows, { findings, table });
        const seen = new Uint8Array(columns * rows);
        for (const { left, top, width, height } of panels(layout)) {
          expect([left + width <= columns, top + height <= rows]).toEqual([true, true]);
          for (let row = top; row < top + height; row++) for (let column = left; column < left + width; column++) seen[row * columns + column]!++;
        }
        expect(Math.max(...seen)).toBe(1);
        expect(layout.map.height).toBeGreaterThanOrEqual(2);
        expect([layout.heat, layout.axis, ...layout.lines, layout.findings, layout.keys].filter(({ height }) => height < 1)).toEqual([]);
      }
    }
  });
});

test('80x24 has all panels, with the legend beside the charts', () => {
  const { map, heat, legend, details, keys } = layoutOf(80, 24, { findings: 2, table: false });
  expect({ map: map.height, heat: heat.height, legend: legend.width, details: details.height, keys: keys.top }).toEqual({ map: 8, heat: 4, legend: 20, details: 4, keys: 23 });
});

test('the table takes the place of the details, or stands beside them where there is room', () => {
  expect(layoutOf(80, 24, { findings: 0, table: false }).requests).toBeNull();
  expect(layoutOf(80, 24, { findings: 0, table: true })).toMatchObject({ details: { height: 0 }, requests: { width: 80, height: 4 } });
  expect(layoutOf(100, 50, { findings: 0, table: false })).toMatchObject({ details: { width: 100, height: 5 }, requests: { left: 0, width: 100, height: 5 } });
  expect(layoutOf(200, 50, { findings: 0, table: false })).toMatchObject({ details: { width: 99, height: 10 }, requests: { left: 101, width: 99, height: 10 } });
});
