/** The founding article's slowdown, seen in our own traces: RAM state that is saved piece by piece, and as it is saved here. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { analyseTrace, createImage, deviceOf, openImage, openTrace, TraceRecorder, VmStateReader, VmStateWriter, type Finding } from '../../src/index.js';
import { saveNaively } from '../support/naive-state.js';
import { repository } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 1024 * 1024;
/** What the recorder calls the file below the image: the fourth layer of the first disk. */
const HOST_FILE = deviceOf(4000, 3);

async function recorded(work: (trace: TraceRecorder) => Promise<unknown>): Promise<readonly Finding[]> {
  const recorder = new TraceRecorder(tmp('trace'));
  await work(recorder);
  const { dropped } = await recorder.stop();
  expect(dropped).toBe(0);
  const { findings } = await analyseTrace(await openTrace(tmp('trace')));
  return findings;
}

/** Chunks of 1 MiB, several in flight, as `snapshot create` writes them and `snapshot load` reads them. */
async function saveAndLoad(image: string, bytes: number, trace: TraceRecorder): Promise<void> {
  await using node = await openImage(image, { cache: 'none', trace });
  const writer = new VmStateWriter(node.driver.vmState!);
  for (let done = 0; done < bytes;) {
    const part = Math.min((await writer.space()).byteLength, bytes - done);
    writer.advance(part);
    done += part;
  }
  const vmStateSize = await writer.finish();
  await node.drained(() => node.driver.snapshots!.create({ name: 'one', vmStateSize, dateSeconds: 1, dateNanoseconds: 0 }));
  const reader = new VmStateReader(await node.driver.snapshots!.openVmState('1'));
  while (await reader.next() !== null) { /* nobody takes it */ }
  await reader.close();
}

test('piece by piece: every write waits for reads of its own blocks, and nothing else is under way', async () => {
  await createImage(tmp('image'), { format: 'qcow2', size: 64 * MiB, clusterSize: MiB });
  const findings = await recorded(async (trace) => {
    await using node = await openImage(tmp('image'), { cache: 'none', trace });
    await saveNaively(node, 4 * MiB);
  });
  expect(findings.map(({ rule, severity, device }) => `${severity} ${rule}${rule === 'rmw' ? ` of ${device}` : ''}`)).toEqual(
    expect.arrayContaining([`critical rmw of ${HOST_FILE}`, 'warning depth-1', 'warning misaligned']));
});

test('in aligned chunks, several at once: nothing to find', async () => {
  await createImage(tmp('image'), { format: 'qcow2', size: 64 * MiB });
  const findings = await recorded((trace) => saveAndLoad(tmp('image'), 256 * MiB + 12_345, trace));
  // whether the disk was all this machine had is the machine's affair
  expect(findings.filter(({ rule }) => rule !== 'saturated')).toEqual([]);
});

test('the pictures in README show traces with these findings', async () => {
  const rules = async (name: string): Promise<string[]> => {
    const { findings } = await analyseTrace(await openTrace(join(repository, 'fixtures', 'trace', name)));
    return [...new Set(findings.map(({ rule }) => rule))].sort();
  };
  expect([await rules('article-naive'), await rules('article-aligned')]).toEqual([['depth-1', 'misaligned', 'rmw'], []]);
});
