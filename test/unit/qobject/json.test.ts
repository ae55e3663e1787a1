/** Printing and parsing, against texts that qemu-storage-daemon 7.2 gave (test/interop/qmp-transcript asks it again). */
import { describe, expect, test } from '@jest/globals';
import { JsonStreamParser, parseJson, type JsonItem } from '../../../src/qobject/parser.js';
import { printJson } from '../../../src/qobject/print.js';

function reprint(text: string, pretty = false): string {
  const { value, error } = parseJson(text) as { value: never; error?: string };
  return error ?? printJson(value, { pretty });
}

describe('printing', () => {
  test('keys come in the order of a hash table, not in that of the sender', () => {
    expect(reprint('{"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "p"}, "return": {}, "id": 1}'))
      .toBe('{"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "p"}, "return": {}, "id": 1}');
  });

  test.each([
    ['1', '1'], ['-0', '0'], ['-0.0', '-0'], ['1.0', '1'], ['1e3', '1000'], ['2.5', '2.5'], ['0.1', '0.10000000000000001'],
    ['1e-5', '1.0000000000000001e-05'], ['1e-4', '0.0001'], ['1e20', '1e+20'], ['18446744073709551615', '18446744073709551615'],
    ['18446744073709551616', '1.8446744073709552e+19'], ['-9223372036854775808', '-9223372036854775808'],
    ['-9223372036854775809', '-9.2233720368547758e+18'], ['9007199254740993', '9007199254740993'], ['123456789012345678901e-3', '1.2345678901234568e+17'],
    ['1e16', '10000000000000000'], ['1e17', '1e+17'], ['true', 'true'], ['null', 'null'],
  ])('%s is printed as %s', (text, printed) => {
    expect(reprint(text)).toBe(printed);
  });

  test('strings are ASCII, with surrogate pairs, and invalid characters are replaced', () => {
    expect(reprint(String.raw`"x\u00e9\n\u20ac\ud83d\ude00\u0000\u001f/\"\\"`)).toBe(String.raw`"x\u00E9\n\u20AC\uD83D\uDE00\u0000\u001F/\"\\"`);
    expect(printJson('\ud800 \uffff \u007f')).toBe(String.raw`"\uFFFD \uFFFD \u007F"`);
  });

  test('the pretty form has a line per member', () => {
    expect(reprint('{"return": [{"a": {}}, []]}', true)).toBe(
      '{\n    "return": [\n        {\n            "a": {\n            }\n        },\n        [\n        ]\n    ]\n}');
  });
});

describe('parsing', () => {
  test.each([
    ['{"execute" 1}', 'missing : in object pair'], ['{"execute":}', 'expecting value'], ['{"execute":tru}', "invalid keyword 'tru'"],
    ['{,}', 'expecting value'], ['{1:2}', 'key is not a string in object'], ['["a" 1]', 'expected separator in list'], ['[,]', 'expecting value'],
    ['[1,]', 'expecting value'], ['{"a":1 "b"}', 'expected separator in dict'], ['}', 'expecting value'], ['[}', 'expecting value'],
    [String.raw`{"a":"\x"}`, 'invalid escape sequence in string'], [String.raw`{"a":"\u12"}`, String.raw`\u12" is not a valid Unicode character`],
    [String.raw`{"a":"\ud800"}`, String.raw`\ud800 is not a valid Unicode character`], ['@', "stray '@'"], ['-x', "stray '-x'"], ['01', "stray '01'"],
    ['1.x', "stray '1.x'"], ['"a\tb"', "stray '\"a\t'"], ['{"a":1,"a":2}', 'duplicate key'], ['{"a": @}', "stray '@'"], ['{"a":', 'premature EOI'],
  ])('%s: %s', (text, error) => {
    expect(parseJson(text)).toEqual({ error: `JSON parse error, ${error}` });
  });

  test('single quotes, several values in a line, one over several lines', () => {
    const text = `{'a': "it's"} 7 {"b":\n[1,\r\n2]}\n`;
    for (const step of [1, 3, 1000]) {
      const items: JsonItem[] = [];
      const parser = new JsonStreamParser((item) => items.push(item));
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at += step) parser.feed(bytes.subarray(at, at + step));
      expect(items.map((item) => printJson((item as { value: never }).value))).toEqual(['{"a": "it\'s"}', '7', '{"b": [1, 2]}']);
    }
  });

  test('after a stray byte the next bracket, line end or FF starts anew', () => {
    const items: JsonItem[] = [];
    const parser = new JsonStreamParser((item) => items.push(item));
    parser.feed(Buffer.from('@junk junk\n{"a":1}\xff{"b":2}', 'latin1'));
    expect(items.map((item) => item.error ?? printJson((item as { value: never }).value)))
      .toEqual(["JSON parse error, stray '@'", '{"a": 1}', "JSON parse error, stray '\u{fffd}'", '{"b": 2}']);
  });

  test('a key __proto__ is a key', () => {
    expect(reprint('{"__proto__": 1, "constructor": 2}')).toContain('"__proto__": 1');
  });

  test('depth, tokens and bytes are bounded', () => {
    expect(parseJson('['.repeat(1025))).toEqual({ error: 'JSON nesting depth limit exceeded' });
    expect(parseJson(`[${'1,'.repeat(1_048_577)}`)).toEqual({ error: 'JSON token count limit exceeded' });
    expect(parseJson(`["${'x'.repeat(65 << 20)}"]`)).toEqual({ error: 'JSON token size limit exceeded' });
  });
});
