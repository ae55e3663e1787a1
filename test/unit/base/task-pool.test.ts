import { expect, test } from '@jest/globals';
import { TaskPool } from '../../../src/base/task-pool.js';

interface Task {
  readonly promise: Promise<void>;
  readonly finish: () => void;
  readonly fail: (error: Error) => void;
}

function task(): Task {
  const { promise, resolve, reject } = deferred();
  return { promise, finish: resolve, fail: reject };
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('runs up to its limit at once; the next starts when one ends', async () => {
  const pool = new TaskPool(2);
  const tasks = [task(), task(), task()];
  await pool.run(() => tasks[0]!.promise);
  await pool.run(() => tasks[1]!.promise);
  let started = false;
  const third = pool.run(() => { started = true; return tasks[2]!.promise; });
  await settled();
  expect({ started, running: pool.running }).toEqual({ started: false, running: 2 });
  tasks[1]!.finish();
  await third;
  expect({ started, running: pool.running }).toEqual({ started: true, running: 2 });
  tasks[0]!.finish();
  tasks[2]!.finish();
  await pool.drain();
  expect(pool.running).toBe(0);
});

test('many waiters never exceed the limit, and all are served', async () => {
  const pool = new TaskPool(3);
  let [running, most, done] = [0, 0, 0];
  await Promise.all(Array.from({ length: 50 }, () => pool.run(async () => {
    most = Math.max(most, ++running);
    await settled();
    running--;
    done++;
  })));
  await pool.drain();
  expect({ most, done }).toEqual({ most: 3, done: 50 });
});

test('the first error is sticky: no new task starts, waiters are refused, drain waits for the rest and reports it', async () => {
  const pool = new TaskPool(2);
  const [bad, other] = [task(), task()];
  await pool.run(() => bad.promise);
  await pool.run(() => other.promise);
  const waiting = pool.run(() => Promise.reject(new Error('must not run')));
  bad.fail(new Error('first'));
  await expect(waiting).rejects.toThrow('first');
  expect(pool.failed).toBe(true);
  const drained = pool.drain();
  other.fail(new Error('second'));
  await expect(drained).rejects.toThrow('first');
  await expect(pool.run(async () => {})).rejects.toThrow('first');
  await expect(pool.drain()).rejects.toThrow('first');
  expect(pool.running).toBe(0);
});

test('a task that throws before it returns a promise counts as failed', async () => {
  const pool = new TaskPool(1);
  await pool.run(() => { throw new Error('early'); });
  await expect(pool.drain()).rejects.toThrow('early');
});

test('draining an idle pool resolves at once', async () => {
  await new TaskPool(4).drain();
});
