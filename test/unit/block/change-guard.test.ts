/** Changes of a node that somebody has to know of first: they wait for it, through whatever they come, and drained sections wait for them. */
import { expect, test } from '@jest/globals';
import type { ChangeGuard } from '../../../src/block/change-guard.js';
import { BlockNode } from '../../../src/block/node.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';
import { turn } from '../../support/job-lab.js';

class Guard implements ChangeGuard {
  readonly log: string[] = [];
  readonly #waiting: (() => void)[] = [];
  holds = true;

  begin(offset: number, bytes: number): Promise<void> | null {
    this.log.push(`begin ${offset} ${bytes}`);
    return this.holds ? new Promise((resolve) => { this.#waiting.push(resolve); }) : null;
  }

  ended(offset: number, bytes: number): void {
    this.log.push(`ended ${offset} ${bytes}`);
  }

  letGo(): void {
    for (const go of this.#waiting.splice(0)) go();
  }
}

function setUp() {
  const node = new BlockNode({ name: 'n', driver: new MemoryDriver({ bytes: 65536, growable: false }) });
  const guards = [new Guard(), new Guard()] as const;
  const heard: string[] = [];
  node.writeObservers.add({ writes: (offset) => void heard.push(`writes ${offset}`), wrote: (offset) => void heard.push(`wrote ${offset} after ${guards[0].log.at(-1)}`) });
  return { node, guards, heard };
}

test('a write, zeroes, a discard and a flush wait, and a read does not', async () => {
  const { node, guards: [guard], heard } = setUp();
  node.changeGuards.add(guard);
  await node.read(0, new Uint8Array(512));
  const writing = node.write(512, new Uint8Array(1024).fill(1));
  await turn();
  expect([guard.log, heard]).toEqual([['begin 512 1024'], []]);
  guard.letGo();
  await writing;
  expect([guard.log, heard]).toEqual([['begin 512 1024', 'ended 512 1024'], ['writes 512', 'wrote 512 after begin 512 1024']]);
  guard.holds = false;
  await node.flush();
  await node.writeZeroes(0, 512);
  await node.discard(0, 512);
  expect(guard.log.slice(2)).toEqual(['begin 0 0', 'ended 0 0', 'begin 0 512', 'ended 0 512', 'begin 0 512', 'ended 0 512']);
});

test('a drained section waits for what waits, and a failed change has ended too', async () => {
  const { node, guards: [guard] } = setUp();
  await node.drained(async () => { node.changeGuards.add(guard); });
  const writing = node.write(0, new Uint8Array(512));
  let drained = false;
  const section = node.drained(async () => { drained = true; });
  await turn();
  expect(drained).toBe(false);
  guard.letGo();
  await Promise.all([writing, section]);
  guard.holds = false;
  node.driver.submit = () => Promise.reject(new Error('broken'));
  await expect(node.write(0, new Uint8Array(512))).rejects.toThrow('broken');
  expect(guard.log.at(-1)).toBe('ended 0 512');
});

test('with two of them, both allow it in the end at the same time', async () => {
  const { node, guards } = setUp();
  for (const guard of guards) node.changeGuards.add(guard);
  guards[1].holds = false;
  const writing = node.write(0, new Uint8Array(512));
  await turn();
  guards[1].holds = true; // what it allowed is over
  guards[0].letGo();
  await turn();
  expect(guards.map(({ log }) => log)).toEqual([['begin 0 512', 'begin 0 0', 'ended 0 0'], ['begin 0 512', 'begin 0 0', 'ended 0 0']]);
  for (const guard of guards) guard.holds = false;
  for (const guard of guards) guard.letGo();
  await writing;
  for (const { log } of guards) expect(log.at(-1)).toBe('ended 0 512');
});
