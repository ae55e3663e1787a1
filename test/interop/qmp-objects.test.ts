/** Objects and the tree they stand in, as qemu-storage-daemon answers for them. */
import { expect, test } from '@jest/globals';
import { ObjectModel, QmpServer, systemClock } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

/** Asked for the properties of this type, the peer aborts. */
const CRASHES = 'qio-net-listener';
const NAMES = [
  'qio-channel-null', 'authz-simple', 'secret_common', 'qio-channel-socket', 'fw_cfg-data-generator', 'container', 'interface',
  'tls-creds-anon', 'pr-manager-helper', 'iothread', 'secret', 'authz', 'chardev-serial', 'qio-channel', 'chardev-mux', 'tls-creds-psk',
  'tls-creds', 'qio-channel-file', 'qio-channel-command', 'qio-channel-websock', 'chardev-pipe', 'main-loop', 'chardev-parallel',
  'chardev-fd', 'qio-channel-tls', 'qio-net-listener', 'authz-list-file', 'pr-manager', 'chardev-null', 'chardev-ringbuf',
  'event-loop-base', 'qio-dns-resolver', 'authz-list', 'chardev-stdio', 'chardev', 'user-creatable', 'chardev-socket', 'chardev-file',
  'chardev-memory', 'qio-channel-buffer', 'object', 'chardev-udp', 'tls-creds-x509', 'tls-cipher-suites', 'chardev-pty', 'thread-context',
  'secret_keyring', 'throttle-group',
];

async function expectSame(...lines: readonly string[]): Promise<void> {
  const model = new ObjectModel();
  model.show('chardevs', 'monitor', 'chardev-socket', { connected: () => true });
  const server = new QmpServer({ commands: model.commands(), version: { major: 1, minor: 0, micro: 0, package: 'x' }, clock: systemClock });
  const theirs = await theirTranscript(negotiated(...lines), tmp('theirs'));
  const ours = await ourTranscript(negotiated(...lines), tmp('ours'), server);
  const told = (replies: readonly string[]): string[] => replies.slice(2).map((reply, index) => `${lines[index]} ${reply}`);
  expect(told(ours)).toEqual(told(theirs));
}

function add(options: string): string {
  return `{"execute":"object-add","arguments":{${options}}}`;
}

function list(path: string): string {
  return `{"execute":"qom-list","arguments":{"path":"${path}"}}`;
}

function get(path: string, property: string): string {
  return `{"execute":"qom-get","arguments":{"path":"${path}","property":"${property}"}}`;
}

function set(path: string, property: string, value: string): string {
  return `{"execute":"qom-set","arguments":{"path":"${path}","property":"${property}","value":${value}}}`;
}

function del(id: string): string {
  return `{"execute":"object-del","arguments":{"id":"${id}"}}`;
}

function types(args: string): string {
  return `{"execute":"qom-list-types","arguments":{${args}}}`;
}

function properties(type: string): string {
  return `{"execute":"qom-list-properties","arguments":{"typename":"${type}"}}`;
}

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test('types', () => expectSame(
    types(''), types('"implements":"user-creatable"'), types('"implements":"user-creatable","abstract":true'), types('"abstract":true'),
    types('"implements":"nope"'), types('"implements":"tls-creds"'), types('"implements":"chardev"'), types('"implements":"fw_cfg-data-generator"'),
    types('"implements":"interface"'), types('"implements":"object"'),
  ));

  test('properties of every type', () => expectSame(properties('nope'), ...NAMES.filter((name) => name !== CRASHES).map(properties)));

  test('objects made, listed, read, changed, deleted', () => expectSame(
    list('/'), list('/objects'), list('/chardevs'), list('/nope'), get('/nope', 'x'), get('/objects', 'x'), get('/objects', 'type'),
    get('/', 'type'), set('/objects', 'type', '1'), add('"qom-type":"secret","id":"s0","data":"hello"'), add('"qom-type":"iothread","id":"io0"'),
    add('"qom-type":"throttle-group","id":"tg0","limits":{"iops-total":100}'), add('"qom-type":"main-loop","id":"ml"'),
    add('"qom-type":"tls-creds-anon","id":"ta","endpoint":"server"'), add('"qom-type":"authz-simple","id":"az","identity":"x"'),
    add('"qom-type":"authz-list","id":"al"'), add('"qom-type":"tls-cipher-suites","id":"tcs"'),
    add('"qom-type":"memory-backend-ram","id":"mb","size":1024'), add('"qom-type":"rng-builtin","id":"rng"'), list('/objects'), list('/objects/s0'),
    list('/objects/io0'), list('/objects/tg0'), list('/objects/ml'), list('/objects/ta'), list('/objects/az'), list('/objects/al'), list('s0'),
    list('objects/s0'), list(''), get('/objects/s0', 'data'), get('/objects/s0', 'loaded'), get('/objects/s0', 'format'), get('/objects/s0', 'file'),
    get('/objects/s0', 'keyid'), get('/objects/s0', 'type'), get('/objects/tg0', 'limits'), get('/objects/tg0', 'x-iops-total'),
    get('/objects/tg0', 'x-iops-total-max-length'), set('/objects/tg0', 'limits', '{"bps-read":5}'), get('/objects/tg0', 'limits'),
    set('/objects/tg0', 'limits', '{"bps-read":5,"bps-total":7}'), set('/objects/tg0', 'limits', '{"bps-read":"x"}'),
    set('/objects/tg0', 'x-iops-total', '4'), set('/objects/s0', 'data', '"zz"'), set('/objects/s0', 'data', '1'), set('/objects/s0', 'nope', '1'),
    set('/objects/s0', 'type', '1'), set('/objects/s0', 'loaded', 'true'), get('/objects/io0', 'poll-max-ns'),
    set('/objects/io0', 'poll-max-ns', '-1'), set('/objects/io0', 'poll-max-ns', '7'), get('/objects/io0', 'poll-max-ns'),
    get('/objects/io0', 'aio-max-batch'), get('/objects/io0', 'thread-pool-max'), add('"qom-type":"secret","id":"s0","data":"hello"'),
    add('"qom-type":"secret","id":"1bad","data":"hello"'), add('"qom-type":"secret","id":"s1"'),
    add('"qom-type":"secret","id":"s1","data":"a","file":"b"'), add('"qom-type":"secret","id":"s1","data":"!!","format":"base64"'),
    add('"qom-type":"secret","id":"s1","data":"aGk=","format":"base64"'), add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"nope"'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"s1"'), add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"s1","iv":"zz"'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"s1","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="'),
    add('"qom-type":"secret","id":"s2","data":"a","loaded":true'), add('"qom-type":"secret","id":"s3","loaded":true,"data":"a"'),
    add('"qom-type":"tls-creds-x509","id":"tx","endpoint":"server","dir":"/nonexistent"'), add('"qom-type":"tls-creds-x509","id":"tx"'),
    add('"qom-type":"tls-creds-psk","id":"tp","endpoint":"server","dir":"/nonexistent"'),
    add('"qom-type":"tls-creds-psk","id":"tp","endpoint":"client"'),
    add('"qom-type":"throttle-group","id":"tg1","limits":{"iops-total":100,"iops-read":4}'),
    add('"qom-type":"throttle-group","id":"tg1","limits":{"iops-total-max":100}'), add('"qom-type":"iothread","id":"io1","poll-max-ns":-1'),
    del('s0'), del('s0'), del('type'), add('"qom-type":"secret","id":"k","data":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=","format":"base64"'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"k"'), add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"k","iv":"zz"'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"k","iv":"aGk="'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="'),
    add('"qom-type":"secret","id":"s2","data":"aGk=","keyid":"k","format":"base64","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="'),
    add('"qom-type":"secret","id":"s2","data":"MDEyMzQ1Njc4OWFiY2RlZg==","keyid":"k","format":"base64","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="'),
    add(String.raw`"qom-type":"secret","id":"s2","data":"\u00e9\u20ac"`), add('"qom-type":"secret","id":"s3","data":"zz=","format":"base64"'),
    add('"qom-type":"secret","id":"s4","data":"aGk","format":"base64"'),
    add(String.raw`"qom-type":"secret","id":"s5","data":"a Gk=\n","format":"base64"`),
    add('"qom-type":"secret","id":"s6","data":"/w==","format":"base64"'), add('"qom-type":"secret","id":"s7","data":""'),
    add('"qom-type":"secret","id":"s9","data":"a=b","format":"base64"'), add('"qom-type":"secret","id":"type","data":"a"'),
    add('"qom-type":"secret_keyring","id":"sk","serial":1'), add('"qom-type":"throttle-group","id":"tg","x-iops-total":7'),
    add('"qom-type":"throttle-group","id":"tg1","limits":{"iops-total":1,"iops-total-max":0}'),
    add('"qom-type":"throttle-group","id":"tg2","limits":{"iops-total":10,"iops-total-max":5}'),
    add('"qom-type":"throttle-group","id":"tg3","limits":{"iops-total":10,"iops-total-max":50,"iops-total-max-length":0}'),
    add('"qom-type":"throttle-group","id":"tg4","limits":{"iops-total":10,"iops-total-max-length":5}'),
    add('"qom-type":"throttle-group","id":"tg5","limits":{"iops-total":10,"iops-total-max":50,"iops-total-max-length":4000000000}'),
    add('"qom-type":"throttle-group","id":"tg6","limits":{"iops-total":-1}'),
    add('"qom-type":"throttle-group","id":"tg7","limits":{"iops-total":1000000000000001}'),
    add('"qom-type":"throttle-group","id":"tg8","limits":{"iops-size":5}'), add('"qom-type":"throttle-group","id":"tg9","limits":{"iops-size":-5}'),
    add('"qom-type":"throttle-group","id":"tg9","x-iops-total":-5'), add('"qom-type":"throttle-group","id":"tgA","x-iops-total-max-length":0'),
    add('"qom-type":"throttle-group","id":"tgB","limits":{"iops-total":5},"x-iops-total":9'), get('tgB', 'x-iops-total'), get('tg4', 'limits'),
    add('"qom-type":"iothread","id":"io","aio-max-batch":-1'), add('"qom-type":"iothread","id":"io","thread-pool-min":70'),
    add('"qom-type":"iothread","id":"io","thread-pool-min":-1'), add('"qom-type":"iothread","id":"io","thread-pool-max":0'),
    add('"qom-type":"main-loop","id":"ml"'), add('"qom-type":"main-loop","id":"ml2"'), del('ml'), del('tg'),
    add('"qom-type":"authz-list","id":"al","policy":"allow","rules":[{"match":"x","policy":"deny"},{"match":"y*","policy":"allow","format":"glob"}]'),
    get('al', 'rules'), get('al', 'policy'), add('"qom-type":"authz-list","id":"al2"'), get('al2', 'rules'),
    add('"qom-type":"authz-list-file","id":"alf","filename":"/x"'), add('"qom-type":"authz-listfile","id":"alf","filename":"/x"'),
    add('"qom-type":"authz-pam","id":"ap","service":"x"'), add('"qom-type":"tls-cipher-suites","id":"tcs","priority":"NORMAL"'),
    get('tcs', 'endpoint'), get('tcs', 'dir'), get('tcs', 'verify-peer'), get('sk', 'serial'), get('/objects/tg/', 'x-iops-total'),
    get('/objects/../objects', 'type'), get('//objects', 'type'), get('/objects/tg1', ''), list('/'), list('monitor'),
  ));
});
