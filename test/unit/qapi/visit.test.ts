/** Checking by a small schema; test/interop/qmp-arguments holds the real one against qemu-storage-daemon. */
import { describe, expect, test } from '@jest/globals';
import { parseNotation } from '../../../src/qapi/notation.js';
import { introspect } from '../../../src/qapi/introspect.js';
import { Schema } from '../../../src/qapi/schema.js';
import { visit } from '../../../src/qapi/visit.js';
import { JsonDouble, type Json } from '../../../src/qobject/value.js';

const small = new Schema(parseNotation(`
  struct q_empty {}
  enum Color { red, green !unstable }
  struct Base { id: str }
  struct Point: Base { x: int, y?: uint16, tags?: [Color] }
  alternate PointRef { there: Point, name: str, none: null }
  union Shape by kind { kind: Color } of { red: Point, -blue: Base }
  struct Wide { n: number, s: size, u: uint64, b: bool, i: int32 }
  command draw { shape: Shape, at?: PointRef } -> [Point] !unstable
  event DRAWN
`), parseNotation('command x-quiesce-more { what: Color }'));

function check(type: string, value: Json, mode: 'json' | 'keyval' = 'json'): unknown {
  try {
    return { ...visit(small, type, value, mode) as object };
  } catch (error) {
    return (error as Error).message;
  }
}

describe('arguments', () => {
  test('members come out in the order of the type, those of the base first', () => {
    expect(Object.keys(visit(small, 'Point', { y: 1, x: 2, id: 'a' }, 'json') as object)).toEqual(['id', 'x', 'y']);
  });

  test.each<[string, Json, unknown]>([
    ['Point', {}, "Parameter 'id' is missing"],
    ['Point', { id: 1 }, "Invalid parameter type for 'id', expected: string"],
    ['Point', { id: 'a', x: new JsonDouble(1) }, "Invalid parameter type for 'x', expected: integer"],
    ['Point', { id: 'a', x: 2n ** 63n }, "Invalid parameter type for 'x', expected: integer"],
    ['Point', { id: 'a', x: 1, y: 65_536 }, "Parameter 'y' expects uint16_t"],
    ['Point', { id: 'a', x: 1, y: -1 }, "Parameter 'y' expects uint16_t"],
    ['Point', { id: 'a', x: 1, y: 'b' }, "Parameter 'y' expects uint64"],
    ['Point', { id: 'a', x: 1, tags: ['red', 'blue'] }, "Parameter 'null' does not accept value 'blue'"],
    ['Point', { id: 'a', x: 1, tags: 'red' }, "Invalid parameter type for 'tags', expected: array"],
    ['Point', { id: 'a', x: 1, z: 1 }, "Parameter 'z' is unexpected"],
    ['Point', [], "Invalid parameter type for '<anonymous>', expected: object"],
    ['Shape', { kind: 'red', id: 'a' }, "Parameter 'x' is missing"],
    ['Shape', { kind: 'green', id: 'a' }, "Parameter 'id' is unexpected"],
    ['Shape', { kind: 'green' }, { kind: 'green' }],
    ['q_obj_draw-arg', { shape: { kind: 'red', id: 'a', x: [] } }, "Invalid parameter type for 'shape.x', expected: integer"],
    ['q_obj_draw-arg', { shape: { kind: 'green' }, at: 1 }, "Invalid parameter type for 'at', expected: PointRef"],
    ['q_obj_draw-arg', { shape: { kind: 'green' }, at: null }, { shape: { kind: 'green' }, at: null }],
    ['q_obj_draw-arg', { shape: { kind: 'green' }, at: { id: 'b', x: 1, tags: [1] } }, "Invalid parameter type for 'at.tags[0]', expected: string"],
    ['Wide', { n: new JsonDouble(2), s: -1, u: 2n ** 64n - 1n, b: true, i: -(2 ** 31) }, { n: 2, s: 2n ** 64n - 1n, u: 2n ** 64n - 1n, b: true, i: -(2 ** 31) }],
    ['Wide', { n: 1, s: 1, u: 1, b: 'on', i: 0 }, "Invalid parameter type for 'b', expected: boolean"],
    ['Wide', { n: 1, s: 1, u: 1, b: true, i: 2 ** 31 }, "Parameter 'i' expects int32_t"],
  ])('%s of %p', (type, value, expected) => {
    expect(check(type, value)).toEqual(expected);
  });

  test.each<[string, Json, unknown]>([
    ['Wide', { n: '1.5', s: '1.5k', u: '0x10', b: 'yes', i: '-010' }, { n: 1.5, s: 1536, u: 16, b: true, i: -8 }],
    ['Wide', { n: '1', s: '1x', u: '1', b: 'on', i: '0' }, "Parameter 's' expects size"],
    ['Wide', { n: '1', s: '0.5', u: '1', b: 'on', i: '0' }, "Parameter 's' expects size"],
    ['Wide', { n: '1', s: '16E', u: '1', b: 'on', i: '0' }, "Parameter 's' expects size"],
    ['Wide', { n: '1', s: '1', u: '1', b: 'ON', i: '0' }, "Parameter 'b' expects 'on' or 'off'"],
    ['Wide', { n: 'x', s: '1', u: '1', b: 'on', i: '0' }, "Invalid parameter type for 'n', expected: number"],
    ['Wide', { n: '1', s: '1', u: '1', b: 'on', i: '1z' }, "Parameter 'i' expects integer"],
    ['Point', { id: 'a', x: { y: '1' } }, "Parameters 'x.*' are unexpected"],
    ['Point', { id: 'a', x: '1', tags: ['red', 'x'] }, "Parameter 'null' does not accept value 'x'"],
    ['Point', { id: 'a', x: '1', tags: [{}] }, "Parameters 'tags.0.*' are unexpected"],
  ])('%s of key=value %p', (type, value, expected) => {
    expect(check(type, value, 'keyval')).toEqual(expected);
  });
});

test('types are numbered by first use, hidden ones too; what is ours comes last', () => {
  expect(introspect(small).map((info) => `${info['name'] as string} ${info['meta-type'] as string}`)).toEqual([
    'draw command', 'DRAWN event', '0 object', '[1] array', '1 object', '2 object', '3 object', '4 alternate',
    'str builtin', 'int builtin', '[5] array', '5 enum', 'null builtin', 'x-quiesce-more command', '7 object',
  ]);
});

test('what the notation does not have is refused', () => {
  expect(() => parseNotation('struct A { b: }')).toThrow("expected a name before '}'");
  expect(() => parseNotation('thing A {}')).toThrow("'thing' begins no definition");
  expect(() => parseNotation('struct A { b: str c: str }')).toThrow("expected ',' before 'c'");
});
