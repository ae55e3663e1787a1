/** What users write is taken as blkparse takes it, or refused in a line. */
import { describe, expect, test } from '@jest/globals';
import { compileFormat, parseActionFormat, parseActionMask, parseMask, parseSpan } from '../../../../src/index.js';

describe('masks', () => {
  test('names and numbers', () => {
    expect([parseActionMask('read'), parseActionMask('BLK_TC_DISCARD'), parseActionMask('Fua')]).toEqual([1, 0x2000, 0x8000]);
    expect([parseMask('80'), parseMask('0xFFFF'), parseMask(' 1')]).toEqual([0x80, 0xffff, 1]);
  });

  test('nonsense', () => {
    expect(() => parseActionMask('rea')).toThrow("invalid action 'rea': expected one of read, write");
    for (const bad of ['', '0', 'x', '10000']) expect(() => parseMask(bad)).toThrow(`invalid mask '${bad}'`);
  });
});

test('spans', () => {
  expect(parseSpan('1.5')).toEqual({ from: 0, to: 1.5e9 });
  expect(parseSpan('.25:1e1')).toEqual({ from: 0.25e9, to: 1e10 });
  for (const bad of ['', 'x', '1:', '1:2:3', '1s']) expect(() => parseSpan(bad)).toThrow(`invalid span '${bad}': expected END or START:END in seconds`);
  expect(() => parseSpan('2:1')).toThrow('it ends before it begins');
});

describe('formats', () => {
  test('fields, widths, escapes and literals', () => {
    const literal = (text: string) => ({ literal: Buffer.from(text) });
    expect(compileFormat('a%%b%5S\\n')).toEqual([literal('a%b'), { field: 'S', width: 5, hasWidth: true }, literal('\n')]);
    expect(compileFormat('%-12C%d%')).toEqual([{ field: 'C', width: -12, hasWidth: true }, { field: 'd', width: 0, hasWidth: false }, literal('%')]);
  });

  test('nonsense', () => {
    expect(() => compileFormat('a\\x')).toThrow("format 'a\\x': expected \\b, \\n, \\r or \\t, got '\\x'");
    expect(() => parseActionFormat('x,y')).toThrow("format 'x,y': expected an action (one of ABCDFGIMPQRSTUWX)");
    expect(() => parseActionFormat('Q')).toThrow("format 'Q': expected a comma behind the action");
  });
});
