import { expect, test } from '@jest/globals';
import { Grid, Painter } from '../../../../src/viewer/terminal/grid.js';
import { Attribute, Colour } from '../../../../src/viewer/terminal/style.js';

function gridOf(...lines: string[]): Grid {
  const grid = new Grid(10, lines.length);
  for (const [row, line] of lines.entries()) grid.write(0, row, line);
  return grid;
}

const ESC = '\u001b';

test('the first picture is written whole, the next ones only where they differ', () => {
  const painter = new Painter('16');
  expect(painter.paint(gridOf('one', 'two'))).toContain(`${ESC}[2J`);
  expect(painter.paint(gridOf('one', 'two'))).toBe('');
  expect(painter.paint(gridOf('one', 'twx'))).toBe(`${ESC}[2;3H${ESC}[0mx${ESC}[0m`);
  expect(painter.paint(gridOf('abe', 'twx'))).toBe(`${ESC}[1;1H${ESC}[0mab${ESC}[0m`);
  painter.forget();
  expect(painter.paint(gridOf('abe', 'twx'))).toContain(`${ESC}[2J`);
});

test('another size is another picture', () => {
  const painter = new Painter('16');
  painter.paint(gridOf('one'));
  expect(painter.paint(gridOf('one', 'two'))).toContain(`${ESC}[2J`);
});

test('a change of style alone is written', () => {
  const painter = new Painter('16');
  painter.paint(gridOf('one'));
  const bold = new Grid(10, 1);
  bold.write(0, 0, 'o', Attribute.BOLD + Colour.ERROR);
  bold.write(1, 0, 'ne');
  expect(painter.paint(bold)).toBe(`${ESC}[1;1H${ESC}[0;1;91mo${ESC}[0m`);
});

test('without colours attributes are left, for they are none', () => {
  const painter = new Painter('none');
  const grid = new Grid(3, 1);
  grid.write(0, 0, 'abc', Attribute.REVERSE + Colour.ERROR);
  const painted = painter.paint(grid);
  expect(painted).toContain(`${ESC}[0;7mabc`);
  expect(painted).not.toMatch(/\[[0-9;]*(?:3[0-9]|9[0-7])/);
});

test('wide characters take two cells and are replaced whole', () => {
  const grid = new Grid(6, 1);
  expect(grid.write(0, 0, 'a漢b')).toBe(4);
  grid.set(2, 0, 'x');
  expect(grid.lines()).toEqual(['a xb']);
  grid.write(0, 0, '漢漢漢');
  grid.set(2, 0, 'x');
  expect(grid.lines()).toEqual(['漢x 漢']);
  // the last column holds no half
  const narrow = new Grid(3, 1);
  narrow.write(0, 0, '漢漢');
  expect(narrow.lines()).toEqual(['漢']);
});

test('a picture with wide characters is brought to another by cells', () => {
  const painter = new Painter('none');
  painter.paint(gridOf('漢字'));
  expect(painter.paint(gridOf('漢ab'))).toBe(`${ESC}[1;3H${ESC}[0mab${ESC}[0m`);
  expect(painter.paint(gridOf('xyab'))).toBe(`${ESC}[1;1H${ESC}[0mxy${ESC}[0m`);
});

test('nothing is written beside the grid', () => {
  const grid = new Grid(4, 2);
  grid.write(2, 0, 'abcdef');
  grid.write(0, 5, 'below');
  grid.write(0, -1, 'above');
  grid.set(9, 0, 'x');
  grid.set(-1, 0, 'x');
  expect(grid.lines()).toEqual(['  ab', '']);
});

test('lines in colour end as they began', () => {
  const grid = new Grid(8, 1);
  grid.write(0, 0, 'ab', Colour.READ);
  grid.write(2, 0, 'cd');
  grid.write(4, 0, 'ef', Colour.WRITE);
  expect(grid.lines('256')).toEqual([`${ESC}[0;38;5;33mab${ESC}[0mcd${ESC}[0;38;5;208mef${ESC}[0m`]);
});
