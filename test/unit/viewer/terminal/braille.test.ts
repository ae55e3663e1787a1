import { expect, test } from '@jest/globals';
import { DotCanvas } from '../../../../src/viewer/terminal/braille.js';
import { Grid } from '../../../../src/viewer/terminal/grid.js';

/** Unicode's own order of dots: 1 2 3 7 down the left, 4 5 6 8 down the right. */
test.each([
  [0, 0, '⠁'], [0, 1, '⠂'], [0, 2, '⠄'], [0, 3, '⡀'], [1, 0, '⠈'], [1, 1, '⠐'], [1, 2, '⠠'], [1, 3, '⢀'],
])('the dot at %d, %d', (x, y, character) => {
  const canvas = new DotCanvas(2, 2, 1);
  canvas.dot(x, y, 0);
  canvas.dot(2 + x, 4 + y, 0);
  expect([canvas.cell(0, 0), canvas.cell(1, 0), canvas.cell(0, 1), canvas.cell(1, 1)]).toEqual([character, ' ', ' ', character]);
});

test('a box is filled, corners included, and cut at the edges', () => {
  const canvas = new DotCanvas(2, 1, 1);
  canvas.box(-5, -5, 1, 9, 0);
  expect([canvas.cell(0, 0), canvas.cell(1, 0)]).toEqual(['⣿', ' ']);
  canvas.box(2, 3, 99, 3, 0);
  expect(canvas.cell(1, 0)).toBe('⣀');
  // all of it outside
  canvas.box(50, 0, 60, 3, 0);
  canvas.box(0, -4, 3, -1, 0);
  expect([canvas.cell(0, 0), canvas.cell(1, 0)]).toEqual(['⣿', '⣀']);
});

test('a cell has the class that hit it most', () => {
  const canvas = new DotCanvas(1, 1, 3);
  expect(canvas.kind(0, 0)).toBe(-1);
  canvas.dot(0, 0, 1);
  expect(canvas.kind(0, 0)).toBe(1);
  canvas.dot(0, 1, 2, 5);
  canvas.dot(1, 1, 1, 3);
  expect(canvas.kind(0, 0)).toBe(2);
  canvas.dot(1, 1, 1);
  expect(canvas.kind(0, 0)).toBe(2);
  canvas.dot(1, 1, 1);
  canvas.dot(1, 1, 1);
  expect(canvas.kind(0, 0)).toBe(1);
});

test('drawn as dots in colours, or as letters', () => {
  const canvas = new DotCanvas(2, 1, 2);
  canvas.dot(0, 0, 0);
  canvas.dot(2, 0, 1);
  const classes = [{ style: 1, letter: 'R' }, { style: 2, letter: 'W' }];
  const dots = new Grid(3, 1);
  canvas.draw(dots, 1, 0, classes, false);
  expect(dots.lines()).toEqual([' ⠁⠁']);
  expect([...dots.styles]).toEqual([0, 1, 2]);
  const letters = new Grid(3, 1);
  canvas.draw(letters, 1, 0, classes, true);
  expect(letters.lines()).toEqual([' RW']);
});
