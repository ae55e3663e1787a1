import { expect, test } from '@jest/globals';
import { LATE_COST, POLL_MS, Polling } from '../../../src/base/polling.js';

function setUp() {
  let now = 1000;
  const waiting: (() => void)[] = [];
  const clock = { wallMs: () => now, monotonicMs: () => now, sleep: () => Promise.resolve() };
  const polling = new Polling(clock, (work) => { waiting.push(work); });
  return {
    polling, waiting,
    pass: (ms: number) => { now += ms; },
    turn: () => { for (const work of waiting.splice(0)) work(); },
  };
}

function steps({ polling, pass }: ReturnType<typeof setUp>, count: number, gap: number): void {
  for (let step = 0; step < count; step++) {
    pass(gap);
    polling.step();
  }
}

test('close steps keep the loop awake, and only for a while', () => {
  const it = setUp();
  steps(it, LATE_COST, POLL_MS / 2); // the first of all is close to none
  expect(it.polling.active).toBe(false);
  steps(it, 1, POLL_MS / 2);
  expect(it.polling.active).toBe(true);
  it.turn();
  expect(it.waiting).toHaveLength(1);
  it.pass(POLL_MS / 2);
  it.polling.step(); // renews the time, and needs no second poll
  it.pass(POLL_MS * 0.75);
  it.turn();
  expect(it.waiting).toHaveLength(1);
  it.pass(POLL_MS / 2);
  it.turn();
  expect(it.waiting).toHaveLength(0);
  expect(it.polling.active).toBe(false);
});

test('while it is held it sleeps, and it wakes with the next step', () => {
  const it = setUp();
  steps(it, LATE_COST * 2, POLL_MS / 2);
  it.polling.hold();
  it.polling.hold();
  it.turn();
  it.polling.resume();
  steps(it, 1, POLL_MS / 2);
  expect([it.polling.active, it.waiting.length]).toEqual([false, 0]);
  it.polling.resume();
  steps(it, 1, POLL_MS / 2);
  expect(it.polling.active).toBe(true);
});

test('steps that come too rarely never do', () => {
  const it = setUp();
  steps(it, 100, POLL_MS * 1.25);
  expect(it.waiting).toHaveLength(0);
});

test('late steps use up what close ones earned', () => {
  const it = setUp();
  steps(it, 100, POLL_MS / 2);
  it.pass(POLL_MS * 2);
  it.turn();
  expect(it.polling.active).toBe(false);
  let polled = 0;
  for (let late = 0; late < 10; late++) {
    steps(it, 1, POLL_MS * 2);
    if (it.polling.active) polled++;
    it.pass(POLL_MS * 2);
    it.turn();
  }
  expect(polled).toBe(3);
  steps(it, LATE_COST, 0); // the first of them is late as well
  expect(it.polling.active).toBe(false);
  steps(it, 1, 0);
  expect(it.polling.active).toBe(true);
});
