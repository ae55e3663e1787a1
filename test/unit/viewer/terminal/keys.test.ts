import { expect, test } from '@jest/globals';
import { KeyDecoder } from '../../../../src/viewer/terminal/keys.js';

const keys = (text: string): string[] => new KeyDecoder().push(text);

test.each([
  ['q', ['q']], ['+-', ['+', '-']], ['\u001b[A\u001b[B', ['up', 'down']], ['\u001bOC\u001bOD', ['right', 'left']], ['\t\r', ['tab', 'enter']], ['\u001b[Z', ['shift-tab']],
  ['\u0003', ['ctrl-c']], ['\u001a', ['ctrl-z']], ['\u001b[5~\u001b[6~', ['page-up', 'page-down']], ['\u001b[1;2D', ['shift-left']], ['\u001b[H\u001b[4~', ['home', 'end']], ['é', ['é']],
  // what nobody knows is nothing, whole
  ['\u001b[200~x', ['x']], ['\u001b[1;5Qy', ['y']], ['\u001b\u001b[A', ['escape', 'up']], ['\u001bx', ['escape', 'x']],
])('%j', (text, expected) => {
  expect(keys(text)).toEqual(expected);
});

test('a sequence that comes in pieces is one key', () => {
  const decoder = new KeyDecoder();
  expect(decoder.push('a\u001b')).toEqual(['a']);
  expect(decoder.isWaiting).toBe(true);
  expect(decoder.push('[')).toEqual([]);
  expect(decoder.push('Cb')).toEqual(['right', 'b']);
  expect(decoder.isWaiting).toBe(false);
});

test('an ESC without a rest is the key', () => {
  const decoder = new KeyDecoder();
  expect(decoder.push('\u001b')).toEqual([]);
  expect(decoder.flush()).toEqual(['escape']);
  expect(decoder.flush()).toEqual([]);
});

test('what never ends does not grow', () => {
  const decoder = new KeyDecoder();
  for (let at = 0; at < 1000; at++) decoder.push(`\u001b[${'1'.repeat(100)}`);
  expect(decoder.flush().length).toBeLessThanOrEqual(1);
});
