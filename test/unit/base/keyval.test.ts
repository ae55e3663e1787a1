import { describe, expect, test } from '@jest/globals';
import { parseKeyval, parseKeyvalOrHelp } from '../../../src/base/keyval.js';

describe('key=value strings', () => {
  test.each([
    ['', {}],
    ['a=1,b=2', { a: '1', b: '2' }],
    ['a=1,a=2,', { a: '2' }],
    ['a=x,,y,b=,,', { a: 'x,y', b: ',' }],
    ['a=,b=c=d', { a: '', b: 'c=d' }],
    ['a.b.c=1,a.b.d=2', { a: { b: { c: '1', d: '2' } } }],
    ['a.1=y,a.0.k=x', { a: [{ k: 'x' }, 'y'] }],
    ['a.0.0=z', { a: [['z']] }],
    ['__org.x_name=1', { '__org.x_name': '1' }],
  ])('%s', (text, tree) => {
    expect(parseKeyval(text)).toEqual(tree);
  });

  test('the first value may go without its key', () => {
    expect(parseKeyval('null-co,node-name=n', 'driver')).toEqual({ driver: 'null-co', 'node-name': 'n' });
    expect(parseKeyval('driver=null-co', 'driver')).toEqual({ driver: 'null-co' });
  });

  // each sentence as qemu-storage-daemon 7.2 prints it
  test.each([
    ['x,foo', "Expected '=' after parameter 'foo'"],
    ['x,=1', "Invalid parameter ''"],
    ['x,a..b=1', "Invalid parameter 'a..b'"],
    ['x,a.b=1,a=2', "Parameters 'a.*' used inconsistently"],
    ['x,a=2,a.b=1', "Parameters 'a.*' used inconsistently"],
    ['x,children.1=a', "Parameter 'children.0' missing"],
    ['x,children.0=a,children.x=1', "Parameters 'children.*' used inconsistently"],
    ['x,9=1', "Invalid parameter '9'"],
    ['x,y.9z=1', "Invalid parameter 'y.9z'"],
    ['x,__org-x=1', "Invalid parameter '__org-x'"],
    ['x,,y=1', "Invalid parameter ''"],
    [',driver=x', "Invalid parameter ''"],
    ['x,a.0.1=1', "Parameter 'a.0.0' missing"],
    ['x,a.99999999999999999999=3', "Parameter 'a.0' missing"],
    [`x,${'k'.repeat(128)}=1`, `Parameter '${'k'.repeat(128)}' is too long`],
    [`x,y.${'k'.repeat(128)}=1`, `Parameter fragment '${'k'.repeat(128)}' is too long`],
    ['x,help', 'Help is not available for this option'],
    ['?', 'Help is not available for this option'],
  ])('%s is refused', (text, message) => {
    expect(() => parseKeyval(text, 'driver')).toThrow(new Error(message));
  });

  test('help is told to who asks', () => {
    expect(parseKeyvalOrHelp('a,help,b=1', 'driver')).toEqual({ tree: { driver: 'a', b: '1' }, help: true });
  });
});
