import { expect, test } from '@jest/globals';
import { WriteGate } from '../../../src/filter/write-gate.js';
import { VirtualClock } from '../../support/virtual-clock.js';

interface Gated {
  readonly clock: VirtualClock;
  readonly gate: WriteGate;
  /** Lets so many writes come at once; those that went are counted. */
  readonly send: (writes: number, bytes: number) => void;
  readonly went: () => number;
}

function gated(): Gated {
  const clock = new VirtualClock();
  const gate = new WriteGate(clock);
  let went = 0;
  const send = (writes: number, bytes: number): void => {
    for (let left = writes; left > 0; left--) {
      const turn = gate.admit(bytes);
      if (turn === null) went++;
      else void turn.then(() => { went++; });
    }
  };
  return { clock, gate, send, went: () => went };
}

test('nothing waits without a rate', () => {
  const { send, went } = gated();
  send(1000, 1e9);
  expect(went()).toBe(1000);
});

test('the rate holds, also for writes that are far smaller than what it lets in per millisecond', async () => {
  for (const [bytes, rate] of [[65_536, 1e6], [4096, 40e6]] as const) {
    const { clock, gate, send, went } = gated();
    gate.bytesPerSecond = rate;
    send(25_000, bytes);
    await clock.advance(2000);
    expect(went() * bytes / (2 * rate)).toBeGreaterThan(0.9);
    expect(went() * bytes / (2 * rate)).toBeLessThan(1.1);
  }
});

test('a rest earns a burst of a tenth of a second at most', async () => {
  const { clock, gate, send, went } = gated();
  gate.bytesPerSecond = 1e6;
  await clock.advance(10_000);
  send(100, 10_000);
  expect(went()).toBeGreaterThanOrEqual(10);
  expect(went()).toBeLessThanOrEqual(11);
});

test('what costs nothing does not wait', async () => {
  const { clock, gate, send, went } = gated();
  gate.bytesPerSecond = 1;
  send(2, 1e6);
  send(50, 0);
  await clock.advance(0);
  expect(went()).toBe(51);
});

test('one large write keeps others out for two seconds at most', async () => {
  const { clock, gate, send, went } = gated();
  gate.bytesPerSecond = 1000;
  send(2, 1e9);
  await clock.advance(2100);
  expect(went()).toBe(2);
});

test('a higher rate, none, and a drained section let go what waits', async () => {
  for (const open of [(gate: WriteGate) => { gate.bytesPerSecond = 1e12; }, (gate: WriteGate) => { gate.bytesPerSecond = Infinity; }, (gate: WriteGate) => gate.pass()]) {
    const { clock, gate, send, went } = gated();
    gate.bytesPerSecond = 10;
    send(20, 1000);
    await clock.advance(10);
    expect(went()).toBe(1);
    open(gate);
    await clock.advance(10);
    expect(went()).toBe(20);
  }
});
