/** `query-qmp-schema` and `query-commands` of ours without what is ours, against those of qemu-storage-daemon: the same bytes. */
import { expect, test } from '@jest/globals';
import { EXTENSION_PREFIX, QmpServer, schema, systemClock } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();
const own = new Set(['qmp_capabilities', 'query-version', 'query-commands', 'query-qmp-schema']);

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test('the schema and the list of commands', async () => {
    const transcript = negotiated('{"execute":"query-qmp-schema"}', '{"execute":"query-commands"}');
    const commands = Object.fromEntries(schema().peer.filter(({ kind, name }) => kind === 'command' && !own.has(name)).map(({ name }) => [name, () => undefined]));
    const server = new QmpServer({ commands, version: { major: 1, minor: 0, micro: 0, package: 'x' }, clock: systemClock });
    const theirs = await theirTranscript(transcript, tmp('theirs'));
    const ours = await ourTranscript(transcript, tmp('ours'), server);
    expect(theirs[2]).toContain('"blockdev-add"');
    // ours comes last: what is before the first type of ours is QEMU's
    const withoutOurs = ours.map((reply) => reply.replace(new RegExp(`, \\{"name": "${EXTENSION_PREFIX}.*(?=\\]\\})`), ''));
    expect(withoutOurs).toEqual(theirs);
  });
});

test('what is ours is called so', () => {
  expect(schema().extensions.map(({ name }) => name).filter((name) => !name.startsWith(EXTENSION_PREFIX))).toEqual(['BLOCK_JOB_PHASE', 'block-job-change']);
});
