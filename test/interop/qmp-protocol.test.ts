/** The protocol itself: greeting, negotiation, ids, garbage. The same bytes go to qemu-storage-daemon and to us. */
import { expect, test } from '@jest/globals';
import { QmpServer, systemClock } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript, type Transcript } from '../support/transcript.js';

const tmp = useTmp();

async function expectSame(transcript: Transcript): Promise<void> {
  const nothing = (): void => undefined;
  const server = new QmpServer({ commands: { block_resize: nothing, quit: nothing }, version: { major: 1, minor: 0, micro: 0, package: 'x' }, clock: systemClock });
  const theirs = await theirTranscript(transcript, tmp('theirs'));
  const ours = await ourTranscript(transcript, tmp('ours'), server);
  expect(ours).toEqual(theirs);
}

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test('greeting, negotiation, version, ids', () => expectSame({
    lines: [
      '{"execute":"query-version","id":1}', '{"execute":"qmp_capabilities","arguments":{"enable":["oob","x"]}}',
      '{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":"a"}', '{"execute":"qmp_capabilities"}',
      '{"execute":"query-version","id":{"b":1,"a":[1,2.5,1e3,-0,-0.0,18446744073709551615,18446744073709551616,1e-5,0.1,1e20],"__proto__":null}}',
      `{'execute':'query-version','id':'x\\u00e9\\n\\u20ac\\ud83d\\ude00\\u0000"'}`, '{"id":7}', '{"id":7,"execute":"zz"}',
      '{"exec-oob":"quit","id":3}', '{"exec-oob":"zz"}', '{"exec-oob":1}', '{"execute":"quit","exec-oob":"x"}',
    ],
  }));

  test('out of band without the capability', () => expectSame(negotiated('{"exec-oob":"quit"}', '{"exec-oob":1,"execute":"x"}')));

  test('requests of the wrong shape', () => expectSame(negotiated(
    '{}', '[]', '"abc"', '1 ', 'null ', '{"execute":1}', '{"foo":1,"execute":"a"}', '{"arguments":1}', '{"arguments":{},"id":null}',
    '{"execute":"a","bar":1,"foo":2,"zip":3}', '{"execute":"query-version","arguments":{"a":1,"b":2}}',
  )));

  test('text that is no JSON', () => expectSame(negotiated(
    '{"execute":"a","execute":"b"}', '{"execute" 1}', '{"execute":}', '{"execute":tru}', '{,}', '{1:2}', '["a" 1]', '[,]', '[1,]', '}', '[}',
    '{"a":1 "b"}', '{"a"}', String.raw`{"a":"\x"}`, String.raw`{"a":"\u12"}`, String.raw`{"a":"\ud800"}`, String.raw`"\ufffe"`, String.raw`"\ud800\u0041"`,
    'nul ', '@', '-x', '01', '1.x', '{"a":"\ttab"', '%d', '"abc', '{"execute":"zz"}', '[[1,2}', ']', '1e+', '{"\\u0000":1}', '"\\',
  )));

  test('bytes that are no UTF-8', () => expectSame(negotiated(
    ...['"\xff"', '"a\x80b"', '"\xc3\xa9"', '"\xc0\x80"', '"\xed\xa0\x80"', '"\xf4\x90\x80\x80"', '"\xc1\xbf"', '"\xe2\x82"', '\xfe', '"\xf8\x88\x80\x80\x80"']
      .map((text) => Buffer.from(text, 'latin1')),
  )));

  test('several requests in a line, one over several lines', () => expectSame({
    lines: ['{"execute":"qmp_capabilities"}{"execute":"query-version"} {"execute":"zz"}', '{"execute":\n\n"query-version"\r\n}', '\t'], replies: { 0: 3, 2: 0 },
  }));

  test('the pretty form', () => expectSame({ ...negotiated('{"execute":"query-version"}', '{"execute":"zz","id":[{},[],[1]]}', '{"execute":"query-version","id":{}}'), pretty: true }));

  test('too deep', () => expectSame(negotiated(`{"a":${'['.repeat(1100)}`.slice(0, 1100))));
});
