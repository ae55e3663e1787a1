import { describe, expect, test } from '@jest/globals';
import { clip, fit, glyphsOf, widthOf, wrap } from '../../../../src/viewer/terminal/text.js';

const shown = (text: string, ascii = false): string => glyphsOf(text, ascii).map((glyph) => glyph.text).join('');

describe('what reaches the terminal', () => {
  test('no control character, whatever a process is called', () => {
    const all = Array.from({ length: 0x2100 }, (_, code) => String.fromCodePoint(code)).join('');
    expect(shown(all)).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(shown('\u001b[2Jrm\u0007\u009b1m')).toBe('\ufffd[2Jrm\ufffd\ufffd1m');
  });

  test('no mark that turns the direction of what follows, and no half of a pair', () => {
    expect(shown('a\u202eb\u2066c\u200bd')).toBe('abcd');
    expect(shown('x\ud800y')).toBe('x\ufffdy');
    expect(shown('\u2028\ue000')).toBe('\ufffd\ufffd');
  });

  test('ASCII alone where nothing else can be shown', () => {
    expect(shown('qemu-µé漢…', true)).toBe('qemu-u??.');
    expect(shown('e\u0301', true)).toBe('e');
  });
});

describe('widths', () => {
  test.each([
    ['qemu', 4], ['', 0], ['漢字', 4], ['한국', 4], ['ｱ', 1], ['Ａ', 2], ['e\u0301', 1], ['👍', 2], ['⣿', 1], ['▁', 1], ['─', 1], ['\u0301', 0],
  ])('%s takes %d', (text, columns) => {
    expect(widthOf(text)).toBe(columns);
  });

  test('a character carries two marks at most', () => {
    expect(shown(`a${'\u0301'.repeat(50)}`)).toBe('a\u0301\u0301');
  });

  test('cut texts say so, and wide characters are never halved', () => {
    expect(clip('process', 10)).toBe('process');
    expect(clip('process', 4)).toBe('pro…');
    expect(clip('漢字漢字', 6)).toBe('漢字…');
    expect(clip('漢字漢字', 8)).toBe('漢字漢字');
    expect(widthOf(clip('漢字漢字', 4))).toBeLessThanOrEqual(4);
    expect(clip('process', 0)).toBe('');
    for (let columns = 0; columns < 12; columns++) expect(widthOf(fit('漢a字b漢c', columns))).toBe(columns);
    expect(fit('12', 4, 'right')).toBe('  12');
  });

  test('lines break between words', () => {
    expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
    expect(wrap('longer-than-the-line x', 5)).toEqual(['longer-than-the-line', 'x']);
  });
});
