/** Forecasts of mirrors: what comes of rates, whatever the guest does. */
import { expect, test } from '@jest/globals';
import { forecast } from '../../../../src/job/mirror/forecast.js';

const MB = 1e6;

test('an idle guest: both take as long as the target needs', () => {
  const { background, auto, phases, guestShare } = forecast({ bytes: 100 * MB, copyRate: 10 * MB, dirtyRate: 0 });
  expect(background).toBe(10_000);
  expect(auto! / 1000).toBeCloseTo(10, 0);
  expect([phases[0], phases.at(-1), guestShare]).toEqual(['bulk', 'ready', 1]);
});

test('nothing to copy is ready at once; a target that takes nothing never is', () => {
  expect(forecast({ bytes: 0, copyRate: 10 * MB, dirtyRate: 50 * MB })).toMatchObject({ background: 0, auto: 0 });
  expect(forecast({ bytes: MB, copyRate: 0, dirtyRate: 0 })).toMatchObject({ background: null, auto: null });
});

test('a guest at half the speed of the target: what it writes again is what has been copied', () => {
  const { background, auto, guestShare } = forecast({ bytes: 100 * MB, copyRate: 10 * MB, dirtyRate: 5 * MB });
  expect(background! / 1000).toBeCloseTo(20 * Math.log(2), 5);
  expect(auto!).toBeLessThanOrEqual(background! * 1.1);
  expect(guestShare).toBeGreaterThan(0.95);
});

test.each([10, 12, 50, 1000])('a guest of %d MB/s over a target of 10: never in the background, in time with auto', (rate) => {
  const { background, auto, phases, guestShare } = forecast({ bytes: 100 * MB, copyRate: 10 * MB, dirtyRate: rate * MB });
  expect(background).toBeNull();
  expect(auto!).toBeLessThanOrEqual(2 * 10_000 + 15_000);
  expect(auto!).toBeGreaterThanOrEqual(10_000);
  expect(phases).toContain('sync');
  expect(guestShare).toBeLessThan(1);
});

test('a guest of small writes waits for the target when they are synchronous, and leaves it most of its time', () => {
  const guest = { bytes: 100 * MB, copyRate: 10 * MB, dirtyRate: 500 * MB };
  expect(forecast({ ...guest, writeRate: MB }).auto!).toBeLessThan(forecast(guest).auto! * 0.8);
  expect(forecast({ ...guest, writeRate: MB, convergence: { minGuestRate: 50 * MB } }).auto).not.toBeNull();
});

test('options count: a deadline makes it sooner, a rate that guests keep may make it never', () => {
  const guest = { bytes: 100 * MB, copyRate: 10 * MB, dirtyRate: 50 * MB };
  const { auto } = forecast(guest);
  expect(forecast({ ...guest, convergence: { deadlineMs: 15_000 } }).auto!).toBeLessThan(auto! * 0.8);
  expect(forecast({ ...guest, convergence: { minGuestRate: 20 * MB } })).toMatchObject({ background: null, auto: null });
});
