import { describe, expect, test } from '@jest/globals';
import { parseQuestion } from '../../../src/viewer/questions.js';
import { packTrace, unpackTrace } from '../../../src/viewer/carry.js';
import { decode, encode } from '../../../src/viewer/wire.js';
import { makeTable, tableOf } from '../../support/io-table.js';

describe('what page and server send each other', () => {
  test('comes back as it was, columns too', () => {
    const value = {
      name: 'ä', none: null, list: [1, { deep: Uint16Array.of(1, 65_535) }], f: Float64Array.of(0.5, Number.NaN), u8: Uint8Array.of(7), i: Int32Array.of(-1), empty: new Uint32Array(0),
    };
    expect(decode(encode(value).buffer)).toEqual(value);
  });

  test('a number that JSON has not is NaN', () => {
    expect(decode(encode({ p99: Number.NaN, more: Infinity }).buffer)).toEqual({ p99: Number.NaN, more: Number.NaN });
  });

  test('a part of a larger column is that part', () => {
    expect(decode(encode(Float64Array.of(1, 2, 3, 4).subarray(1, 3)).buffer)).toEqual(Float64Array.of(2, 3));
  });
});

describe('a question from a socket', () => {
  const view = { ask: 'view', from: 0, to: 1, columns: 10, heatColumns: 5, rows: 5, sectors: null, colour: 'op', latency: 'q2c', filter: {} };

  test('is taken where it is one', () => {
    expect(parseQuestion({ ...view, filter: { ops: ['read'], pids: [1], devices: [2] } })).toMatchObject({ columns: 10, filter: { ops: ['read'], pids: [1], devices: [2] } });
  });

  test.each([
    ['no object', 7], ['a list', []], ['nothing asked', {}], ['another name', { ask: 'files' }], ['too many columns', { ...view, columns: 1e9 }], ['half a column', { ...view, columns: 1.5 }],
    ['no columns', { ...view, columns: 0 }], ['an empty window', { ...view, to: 0 }], ['text for a time', { ...view, from: '0' }], ['a colour', { ...view, colour: 'red' }],
    ['an op', { ...view, filter: { ops: ['trim'] } }], ['a filter', { ...view, filter: null }], ['pids', { ...view, filter: { pids: ['1'] } }], ['sectors', { ...view, sectors: { from: 5, to: 5 } }],
    ['too many rows', { ...view, rows: 1e6 }], ['too many pids', { ...view, filter: { pids: Array.from({ length: 10_001 }, () => 1) } }],
    ['a unit of 0', { ask: 'nearest', time: 0, sector: 0, timeUnit: 0, sectorUnit: 1, filter: {} }], ['many events', { ask: 'events', from: 0, to: 1, filter: {}, limit: 1e7 }],
  ])('is refused: %s', (_, question) => {
    expect(() => parseQuestion(question)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

describe('a table that a page carries', () => {
  const facts = { name: 'x', records: 5, remarks: ['one'], findings: [] };

  test('comes back the same', () => {
    const table = makeTable(4000);
    expect(unpackTrace(packTrace(table, facts).buffer)).toEqual({ table, facts, prepared: null });
  });

  test('with times that are not known, merges, and times before the step they follow', () => {
    const table = tableOf([
      { queued: Number.NaN, issued: 5, completed: 7 }, { queued: 10, mergedInto: 2, sector: 2 ** 40 }, { queued: 11, issued: 9, completed: 8, error: 65_535, cause: 'cow' },
    ], 100);
    expect(unpackTrace(packTrace(table, facts).buffer)).toEqual({ table, facts, prepared: null });
  });
});
