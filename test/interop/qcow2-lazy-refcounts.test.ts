/** Lazy refcounts: a clean close leaves a clean image; one that was not closed is dirty, and each side repairs the other's. */
import { copyFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, openImage, Random } from '../../src/index.js';
import { allAgree, infoAgrees, qemuInfo, weReadAs, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const CLUSTER = 65536;
const SIZE = 8 * 1024 * 1024;

async function dirtyOfOurs(): Promise<{ path: string; twin: Twin }> {
  const path = tmp('dirty.qcow2');
  await createImage(tmp('live.qcow2'), { format: 'qcow2', size: SIZE, lazyRefcounts: true });
  const node = await openImage(tmp('live.qcow2'));
  const twin = new Twin(tmp('twin.raw'), SIZE);
  const steps = randomSteps(new Random(5), SIZE, CLUSTER, 20);
  await stepsByUs(node, steps);
  for (const step of steps) twin.apply(step, CLUSTER);
  await node.flush();
  copyFileSync(tmp('live.qcow2'), path); // as a crash after the flush would leave it
  await node.close();
  return { path, twin };
}

async function dirtyOfQemu(): Promise<{ path: string; twin: Twin }> {
  const path = tmp('dirty.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', path, String(SIZE)]);
  const killed = await run('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x33 100000 3000000', '-c', 'write -q -z 1M 1M', '-c', 'flush', '-c', 'abort', path]);
  expect(killed.signal).toBe('SIGABRT');
  const twin = new Twin(tmp('twin.raw'), SIZE);
  twin.write(100000, Buffer.alloc(3000000, 0x33));
  twin.zero(1024 * 1024, 1024 * 1024);
  return { path, twin };
}

peers('qemu-img', 'qemu-io')('lazy refcounts', () => {
  test('of ours are clean after a close', async () => {
    const path = tmp('ours.qcow2');
    await createImage(path, { format: 'qcow2', size: SIZE, lazyRefcounts: true });
    const twin = new Twin(tmp('twin.raw'), SIZE);
    const steps = randomSteps(new Random(6), SIZE, CLUSTER, 20);
    await withImage(path, {}, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, CLUSTER);
    await allAgree(path, twin);
    expect(await infoAgrees(path)).toMatchObject({ 'dirty-flag': false, 'format-specific': { data: { 'lazy-refcounts': true } } });
  });

  test('of ours, not closed: QEMU repairs them and reads the data', async () => {
    const { path, twin } = await dirtyOfOurs();
    expect(await qemuInfo(path)).toMatchObject({ 'dirty-flag': true });
    await weReadAs(path, twin);
    await runOk('qemu-img', ['check', '-q', '-r', 'all', '-f', 'qcow2', path]);
    expect(await qemuInfo(path)).toMatchObject({ 'dirty-flag': false });
    await allAgree(path, twin);
  });

  test('of ours, not closed: we repair them by opening for writing', async () => {
    const { path, twin } = await dirtyOfOurs();
    await withImage(path, {}, (node) => node.write(0, twin.read(0, 512)));
    expect(await qemuInfo(path)).toMatchObject({ 'dirty-flag': false });
    await allAgree(path, twin);
  });

  test('of QEMU, not closed: read-only we read it and leave it as it is', async () => {
    const { path, twin } = await dirtyOfQemu();
    await weReadAs(path, twin);
    await infoAgrees(path);
    expect(await qemuInfo(path)).toMatchObject({ 'dirty-flag': true });
  });

  test('of QEMU, not closed: we repair them by opening for writing', async () => {
    const { path, twin } = await dirtyOfQemu();
    const steps = randomSteps(new Random(7), SIZE, CLUSTER, 10);
    await withImage(path, {}, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, CLUSTER);
    expect(await qemuInfo(path)).toMatchObject({ 'dirty-flag': false });
    await allAgree(path, twin);
  });

  test('of QEMU, not closed: our check with repair', async () => {
    const { path, twin } = await dirtyOfQemu();
    const result = await withImage(path, { forCheck: true }, (node) => node.driver.check!({ repair: 'all' }));
    expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(result.corruptionsFixed).toBeGreaterThan(0);
    await allAgree(path, twin);
  });
});
