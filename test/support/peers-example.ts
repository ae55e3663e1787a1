/** Not a test of its own: test/unit/support/peers.test.ts runs it to see what becomes of a test that misses a program. */
import { test } from '@jest/globals';
import { peers } from './peers.js';

peers('sh', 'no-such-program')('with a program', () => {
  test('it', () => undefined);
});
