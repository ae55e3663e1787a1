/**
 * The engine alone, against fio: RAM state that lies in memory already, as fio's buffers do, and nobody to take it. A
 * fresh process, so that its peak memory is its own and its code as cold as a command's; its start-up is not timed.
 */
import { randomFillSync } from 'node:crypto';
import { createSnapshot, loadSnapshot, openImage, VmStateReader, VmStateWriter, type CacheModeName } from '../../src/index.js';
import { runOk } from '../../test/support/run.js';

export const ENGINE_FLAG = '--engine';

/** As the launcher has them. */
const NODE_FLAGS = ['--interrupt-budget=1000000'];

/** `create` and `load`: the engine alone, `source` is bytes. `create-job` and `load-job`: the whole job, `source` is the state's file. */
export type EngineVerb = 'create' | 'load' | 'create-job' | 'load-job';

/** Runs `engineMain` in a process of its own; seconds of its work. `script` is the running bundle. */
export async function timedEngine(script: string, verb: EngineVerb, image: string, cache: CacheModeName, source: string | number): Promise<number> {
  return Number(await runOk(process.execPath, [...NODE_FLAGS, script, ENGINE_FLAG, verb, image, cache, String(source)],
    { timeoutMs: 300_000, env: { UV_THREADPOOL_SIZE: '16' } }));
}

export async function engineMain(args: readonly string[]): Promise<void> {
  const [verb, image, cache, source] = args as [EngineVerb, string, CacheModeName, string];
  const started = performance.now();
  switch (verb) {
    case 'create': await create(image, cache, Number(source)); break;
    case 'load': await load(image, cache); break;
    case 'create-job': await createSnapshot({ image, tag: 'bench', vmState: source, cache }); break;
    case 'load-job': await loadSnapshot({ image, tag: 'bench', vmState: '/dev/null', cache });
  }
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
