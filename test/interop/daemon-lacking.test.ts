/** What the daemon has not: refused in the words of qemu-storage-daemon, which on this host cannot have it either. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourDaemonTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();
const line = (execute: string, args: object): string => JSON.stringify({ execute, arguments: args });
const object = (type: string, id: string, more: object = {}): string => line('object-add', { 'qom-type': type, id, ...more });
const nbd = (server: object): string => line('blockdev-add', { driver: 'nbd', 'node-name': 'n', server });
const file = (manager: string): string => line('blockdev-add', { driver: 'file', 'node-name': 'f', filename: tmp('disk'), 'pr-manager': manager });

peers('qemu-storage-daemon')('what is lacking', () => {
  test('is refused with the same answers', async () => {
    writeFileSync(tmp('disk'), Buffer.alloc(4096));
    const transcript = negotiated(
      object('secret_keyring', 'k', { serial: 1 }), object('secret_keyring', 'k', { serial: 123_456_789 }), object('secret_keyring', 'k'),
      object('pr-manager-helper', 'p'), object('pr-manager-helper', 'p', { path: tmp('none') }),
      object('iothread', 'i'), file('none'), file('i'),
      nbd({ type: 'fd', str: '99' }), nbd({ type: 'fd', str: 'x' }), nbd({ type: 'vsock', cid: 'x', port: '5' }), nbd({ type: 'vsock', cid: '1', port: 'x' }),
      line('query-named-block-nodes', { flat: true }),
    );
    const theirs = await theirTranscript(transcript, tmp('theirs'));
    expect((await ourDaemonTranscript(transcript, tmp('ours'))).slice(1)).toEqual(theirs.slice(1));
  });
});
