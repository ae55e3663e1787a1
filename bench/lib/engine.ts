/**
 * The engine alone, against fio: RAM state that lies in memory already, as fio's buffers do, and nobody to take it. A
 * fresh process, so that its peak memory is its own and its code as cold as a command's; its start-up is not timed.
 */
import { randomFillSync } from 'node:crypto';
import { openImage, VmStateReader, VmStateWriter, type CacheModeName } from '../../src/index.js';
import { runOk } from '../../test/support/run.js';

export const ENGINE_FLAG = '--engine';

/** As the launcher has them. */
const NODE_FLAGS = ['--interrupt-budget=1000000'];

/** Runs `engineMain` in a process of its own; seconds of its work. `script` is the running bundle. */
export async function timedEngine(script: string, verb: 'create' | 'load', image: string, cache: CacheModeName, bytes: number): Promise<number> {
  return Number(await runOk(process.execPath, [...NODE_FLAGS, script, ENGINE_FLAG, verb, image, cache, String(bytes)], { timeoutMs: 300_000 }));
}

export async function engineMain([verb, image, cache, bytes]: readonly string[]): Promise<void> {
  const started = performance.now();
  if (verb === 'create') await create(image!, cache as CacheModeName, Number(bytes));
  else await load(image!, cache as CacheModeName);
  console.log((performance.now() - started) / 1000);
}

async function create(image: string, cache: CacheModeName, bytes: number): Promise<void> {
  const node = await openImage(image, { cache });
  const writer = new VmStateWriter(node.driver.vmState!);
  const filled = new Set<number>();
  for (let done = 0; done < bytes;) {
    const space = await writer.space();
    // each chunk of the arena once, as fio fills its buffers once
    if (!filled.has(space.byteOffset)) randomFillSync(space);
    filled.add(space.byteOffset);
    const part = Math.min(space.byteLength, bytes - done);
    writer.advance(part);
    done += part;
  }
  const vmStateSize = await writer.finish();
  await node.drained(() => node.driver.snapshots!.create({ name: 'bench', vmStateSize, dateSeconds: 1, dateNanoseconds: 0 }));
  await node.close();
}

async function load(image: string, cache: CacheModeName): Promise<void> {
  const node = await openImage(image, { cache, readOnly: true });
  const reader = new VmStateReader(await node.driver.snapshots!.openVmState('1'));
  while (await reader.next() !== null) { /* nobody takes it */ }
  await reader.close();
  await node.close();
}
