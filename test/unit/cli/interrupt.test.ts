import { afterEach, expect, jest, test } from '@jest/globals';
import { endInOrder, listenForInterrupt } from '../../../cli/interrupt.mjs';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

afterEach(() => {
  for (const name of SIGNALS) process.removeAllListeners(name);
});

test('the first signal aborts, the second ends at once', () => {
  const endNow = jest.fn();
  const { signal, exitCode } = listenForInterrupt(endNow);
  expect(exitCode()).toBeUndefined();
  process.emit('SIGINT');
  expect(signal.aborted).toBe(true);
  expect(signal.reason).toMatchObject({ code: 'CANCELLED', message: 'interrupted by SIGINT' });
  expect(endNow).not.toHaveBeenCalled();
  process.emit('SIGTERM');
  expect(endNow).toHaveBeenCalledWith(143);
  expect(exitCode()).toBe(130);
});

test('a command that must end in order is not cut short by a second signal', () => {
  const endNow = jest.fn();
  const { signal } = listenForInterrupt(endNow);
  endInOrder();
  process.emit('SIGTERM');
  process.emit('SIGTERM');
  process.emit('SIGINT');
  expect(signal.aborted).toBe(true);
  expect(endNow).not.toHaveBeenCalled();
});
