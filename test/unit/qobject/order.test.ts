/** Orders that qemu-storage-daemon 7.2 showed. */
import { expect, test } from '@jest/globals';
import { orderedKeys } from '../../../src/qobject/dict-order.js';
import { GlibKeys } from '../../../src/qobject/glib-order.js';

test('keys of a dictionary come in the order of its hash table', () => {
  expect(orderedKeys({ major: 7, minor: 2, micro: 22 })).toEqual(['micro', 'minor', 'major']);
  expect(orderedKeys({ data: 1, event: 2, timestamp: 3 })).toEqual(['timestamp', 'event', 'data']);
  expect(orderedKeys({ execute: 1, arguments: 2, id: 3, 'exec-oob': 4 })).toEqual(orderedKeys({ 'exec-oob': 1, id: 2, arguments: 3, execute: 4 }));
});

test('children of a container come in the order of a GLib table, the last one first', () => {
  const table = new GlibKeys(['s0', 'io0', 'tg0', 'ml', 'ta', 'az', 'al']);
  table.add('tcs');
  table.delete('tcs');
  expect([...table].reverse()).toEqual(['io0', 'ta', 'ml', 'al', 's0', 'az', 'tg0']);
});

test('a table stays right through any additions and removals', () => {
  const table = new GlibKeys();
  const model = new Set<string>();
  for (let step = 0; step < 5000; step++) {
    const key = `k${(step * 7919) % 900}`;
    if (step % 3 === 2) expect(table.delete(key)).toBe(model.delete(key));
    else model.add(key);
    if (step % 3 !== 2) table.add(key);
  }
  expect([...table].sort()).toEqual([...model].sort());
  for (const key of model) expect(table.delete(key)).toBe(true);
  expect([...table]).toEqual([]);
});
