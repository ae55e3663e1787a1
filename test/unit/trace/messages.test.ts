import { expect, test } from '@jest/globals';
import { deviceMessage, droppedMessage, parseMessage, processMessage, requestMessageStart } from '../../../src/trace/messages.js';
import { deviceOf } from '../../../src/trace/record.js';

test('what recordings say is understood again', () => {
  expect(parseMessage(`${deviceMessage(deviceOf(4000, 7), 'file', 'file', '', '/x/name=a b\n.qcow2')}   `))
    .toEqual({ kind: 'device', device: [4000, 7], layer: 'file', driver: 'file', node: '', name: '/x/name=a b?.qcow2' });
  expect(parseMessage(processMessage(5_000_001, 'nbd unix'))).toEqual({ kind: 'process', pid: 5_000_001, name: 'nbd unix' });
  expect(parseMessage(`${requestMessageStart('l2-alloc', '')}65536 bytes=4096  `)).toEqual({ kind: 'request', cause: 'l2-alloc', op: '', offset: 65536, bytes: 4096 });
  expect(parseMessage(`${requestMessageStart('', 'write-zeroes')}0 bytes=1`)).toEqual({ kind: 'request', cause: '', op: 'write-zeroes', offset: 0, bytes: 1 });
  expect(parseMessage(droppedMessage(3))).toEqual({ kind: 'dropped', records: 3 });
});

test.each(['', 'fio r 1 2', 'quiesce', 'quiesce something=else', 'cfq1234 arm_idle'])('not ours: %j', (text) => expect(parseMessage(text)).toBeNull());
