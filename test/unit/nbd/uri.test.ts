import { describe, expect, test } from '@jest/globals';
import { isNbdName } from '../../../src/nbd/name.js';
import { parseNbdName } from '../../../src/nbd/uri.js';

describe('names of NBD exports', () => {
  test.each([
    ['nbd://example.com', { type: 'inet', host: 'example.com', port: 10809 }, ''],
    ['nbd://example.com/', { type: 'inet', host: 'example.com', port: 10809 }, ''],
    ['nbd://example.com:1234/disk', { type: 'inet', host: 'example.com', port: 1234 }, 'disk'],
    ['nbd://example.com//disk', { type: 'inet', host: 'example.com', port: 10809 }, '/disk'],
    ['nbd://example.com/hello%20world', { type: 'inet', host: 'example.com', port: 10809 }, 'hello world'],
    ['nbd+tcp://127.0.0.1:1/a/b', { type: 'inet', host: '127.0.0.1', port: 1 }, 'a/b'],
    ['NBD://[::1]:10810/x', { type: 'inet', host: '::1', port: 10810 }, 'x'],
    ['nbd://', { type: 'inet', host: 'localhost', port: 10809 }, ''],
    ['nbd:///x', { type: 'inet', host: 'localhost', port: 10809 }, 'x'],
    ['nbd://host/x#fragment', { type: 'inet', host: 'host', port: 10809 }, 'x'],
    ['nbd+unix:///disk?socket=/run/nbd.sock', { type: 'unix', path: '/run/nbd.sock' }, 'disk'],
    ['nbd+unix://?socket=nbd.sock', { type: 'unix', path: 'nbd.sock' }, ''],
    ['nbd+unix:///?socket=%00/abstract', { type: 'unix', path: '\0/abstract' }, ''],
    ['nbd+unix:///d%C3%BCsk?socket=/a%26b', { type: 'unix', path: '/a&b' }, 'düsk'],
    ['nbd:unix:/run/s:exportname=a:b', { type: 'unix', path: '/run/s' }, 'a:b'],
    ['nbd:unix:/run/s', { type: 'unix', path: '/run/s' }, ''],
    ['nbd:localhost:10809', { type: 'inet', host: 'localhost', port: 10809 }, ''],
    ['nbd:[::1]:99:exportname=x', { type: 'inet', host: '::1', port: 99 }, 'x'],
  ])('%s', (name, address, exportName) => {
    expect(isNbdName(name)).toBe(true);
    expect(parseNbdName(name)).toEqual({ address, exportName, tls: null });
  });

  test.each([
    ['nbds://alice@example.com/x?tls-psk-file=/k', { certificates: null, pskFile: '/k', username: 'alice', verifyPeer: true, hostname: 'example.com' }],
    ['nbds://u%40x@h?tls-certificates=/pki&tls-verify-peer=0', { certificates: '/pki', pskFile: null, username: 'u@x', verifyPeer: false, hostname: 'h' }],
    ['nbds+unix://?socket=/s&tls-hostname=me&tls-type=x509', { certificates: null, pskFile: null, username: null, verifyPeer: true, hostname: 'me' }],
    ['nbds+unix:///?socket=/s&tls-username=bob&tls-psk-file=/k&tls-type=psk', { certificates: null, pskFile: '/k', username: 'bob', verifyPeer: true, hostname: null }],
  ])('TLS of %s', (name, tls) => {
    expect(parseNbdName(name).tls).toEqual(tls);
  });

  test.each([
    'nbd+unix:///x', 'nbd+unix:///x?socket=', 'nbd+unix://host/x?socket=/s', 'nbd://host/x?socket=/s', 'nbd://host:0/', 'nbd://host:65536/',
    'nbd://host:x/', 'nbd://host/x?unknown=1', 'nbd://host/%zz', 'nbd://host/%00', 'nbd://::1/', 'nbd:host', 'nbd:unix:', 'nbd:host:port',
    'nbds://h?tls-type=anon', 'nbds://h?tls-type=psk', 'nbds://h?tls-psk-file=a&tls-certificates=b', 'nbds://h?tls-verify-peer=maybe',
    'nbd+unix:///?socket=a&socket=b', `nbd://host/${'x'.repeat(4097)}`,
  ])('refuses %s', (name) => {
    expect(isNbdName(name)).toBe(true);
    expect(() => parseNbdName(name)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  test('file names are no NBD names', () => {
    expect(['disk.img', '/nbd/disk', 'nbd', 'nbdx://h', './nbd:x', 'nbd+ssh://h'].filter(isNbdName)).toEqual([]);
  });
});
