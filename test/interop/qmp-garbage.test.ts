/** Requests with bytes changed at random, the same to both: what qemu-storage-daemon says of each, we say. */
import { expect, test } from '@jest/globals';
import { QmpServer, Random, systemClock } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

const SEEDS = [
  '{"execute":"query-version","id":[1,-2,3.5e1,0,true,null]}\n', `{'execute':'query-version','id':{"a":"b","c":{"d":[]}}}`, '[[[1,2],{"x":{}}]]\n',
  String.raw`{"id":"\u00e9\ud83d\ude00\n\\ \/","execute":"zz"}`, '"\u00e9\u20ac\u{1f600}"\n', '{"execute":"query-version","arguments":{"b":1,"a":2,"é":3}}\n',
  '-0.5 1e5 12 -7 ', '{"exec-oob":"query-version","id":18446744073709551615}\r\n', 'true false null nul\n',
];
const BYTES = [...Buffer.from(`{}[]:,"'\\ \n\t-+.eE019aux%@`), 0x00, 0x01, 0x7f, 0x80, 0xc0, 0xc3, 0xe2, 0xed, 0xf0, 0xfe, 0xff];

function garble(random: Random): Buffer {
  const parts = Array.from({ length: 400 }, () => {
    const bytes = Buffer.from(random.pick(SEEDS));
    for (let changes = random.below(4); changes > 0; changes--) bytes[random.below(bytes.length)] = random.pick(BYTES);
    const from = random.chance(0.2) ? random.below(bytes.length) : 0;
    return bytes.subarray(from, random.chance(0.2) ? random.below(bytes.length) : bytes.length);
  });
  return Buffer.concat(parts);
}

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test.each([1, 2, 3, 4])('bytes changed at random (seed %i)', async (seed) => {
    const transcript = { ...negotiated(), bytes: garble(new Random(seed)) };
    const server = new QmpServer({ commands: {}, version: { major: 1, minor: 0, micro: 0, package: 'x' }, clock: systemClock });
    const theirs = await theirTranscript(transcript, tmp('theirs'));
    const ours = await ourTranscript(transcript, tmp('ours'), server);
    expect(theirs.length).toBeGreaterThan(200);
    expect(ours).toEqual(theirs);
  });
});
