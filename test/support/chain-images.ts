/** Three images, one on the other, as the scripts on commit and stream have them. */
import { mkdirSync } from 'node:fs';
import { expect } from '@jest/globals';
import { ourReplies, theirReplies, type JobStep } from './job-script.js';
import { runOk } from './run.js';

/** base.qcow2 ← mid.qcow2 ← top.qcow2 in a folder. */
export async function makeChain(folder: string, baseSize = '4M'): Promise<void> {
  const file = (name: string): string => `${folder}/${name}.qcow2`;
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', file('base'), baseSize]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', file('base'), '-F', 'qcow2', file('mid'), '4M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', file('mid'), '-F', 'qcow2', file('top'), '4M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 2M', file('base')]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 2 1M 2M', file('mid')]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 3M 64k', file('top')]);
}

export function add(folder: string, name: string, options: Readonly<Record<string, unknown>> = {}): JobStep {
  return ['blockdev-add', {
    driver: 'qcow2', 'node-name': name, file: { driver: 'file', 'node-name': `${name}-file`, filename: `${folder}/${name}.qcow2` }, ...options,
  }];
}

/** Those below are read-only, as they are below an overlay that opens them. */
export function addChain(folder: string): readonly JobStep[] {
  return [add(folder, 'base', { 'read-only': true }), add(folder, 'mid', { 'read-only': true, backing: 'base' }), add(folder, 'top', { backing: 'mid' })];
}

/** Plays the steps to both daemons, each on a new chain in a new folder: messages and images must be the same. */
export async function compareOnChain(folder: string, steps: readonly JobStep[], baseSize = '4M', nodes = addChain(folder)): Promise<void> {
  mkdirSync(folder);
  const all: readonly JobStep[] = [...nodes, ...steps, ['quit']];
  const info = async (): Promise<string> => (await runOk('qemu-img', ['info', `${folder}/top.qcow2`])).replace(/disk size: .*/g, '');
  await makeChain(folder, baseSize);
  const expected = await theirReplies(all, folder);
  const theirInfo = await info();
  await makeChain(folder, baseSize);
  const actual = await ourReplies(all, folder);
  for (const [index, step] of all.entries()) expect([step, actual[index]]).toEqual([step, expected[index]]);
  expect(await info()).toBe(theirInfo);
  for (const name of ['top', 'mid', 'base']) expect(await runOk('qemu-img', ['check', `${folder}/${name}.qcow2`])).toContain('No errors');
}
