/** RAM state of a real QEMU: streamed out over QMP, checked, and streamed into a new QEMU. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import {
  checkStreamEnd, migrateInto, openVmStateOutput, QmpClient, sendState, SocketInput, Spool, VmStateReader, VmStateWriter, whileStopped, type StoredState,
} from '../../src/index.js';
import { startMachine, type Machine } from '../support/machine.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const LOAD_ADDRESS = 0x100_0000;
const PATTERN_BYTES = 8 * 1024 * 1024;

/** A machine whose RAM holds a known pattern, not yet started. */
function patternMachine(qmpPath: string): Promise<Machine> {
  writeFileSync(tmp('pattern'), randomBytes(PATTERN_BYTES));
  return startMachine(qmpPath, ['-S', '-device', `loader,file=${tmp('pattern')},addr=0x${LOAD_ADDRESS.toString(16)},force-raw=on`]);
}

async function ramHash(qmp: QmpClient, name: string): Promise<string> {
  await qmp.execute('pmemsave', { val: LOAD_ADDRESS, size: PATTERN_BYTES, filename: tmp(name) });
  return createHash('sha256').update(readFileSync(tmp(name))).digest('hex');
}

/** Saves the machine's RAM state into a spool; returns its length. */
async function saveInto(spool: Spool, qmp: QmpClient): Promise<number> {
  const input = await SocketInput.listen(tmp('migrate'));
  const writer = new VmStateWriter(spool);
  try {
    const bytes = await whileStopped(qmp, () => migrateInto(qmp, input, writer));
    expect(await writer.finish()).toBe(bytes);
    return bytes;
  } finally {
    await input.close();
    await writer.abort();
  }
}

async function loadAll(spool: Spool, bytes: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of new VmStateReader(spool.source(bytes))) parts.push(chunk.slice());
  return Buffer.concat(parts);
}

function stored(bytes: Uint8Array): StoredState {
  return { load: async (position, into) => {
    const part = bytes.subarray(position, position + into.byteLength);
    into.set(part);
    return part.byteLength;
  } };
}

peers('qemu-system-x86_64')('RAM state of a real QEMU', () => {
  test('a stream is whole as QEMU sent it, and truncated anywhere it is refused', async () => {
    const machine = await patternMachine(tmp('qmp'));
    try {
      const qmp = await QmpClient.connect(machine.qmpPath);
      await using spool = await Spool.beside(tmp('disk'));
      const bytes = await saveInto(spool, qmp);
      qmp.close();
      expect(bytes).toBeGreaterThan(PATTERN_BYTES);
      expect(await checkStreamEnd(spool, bytes)).toBe('qemu');
      const stream = await loadAll(spool, bytes);
      const cuts = [4, 5, 4096, bytes / 3, bytes / 2, bytes - 200_000, bytes - 100_000, bytes - 50_000];
      for (let cut = bytes - 1; cut > bytes - 40; cut--) cuts.push(cut);
      for (const cut of cuts.map(Math.floor)) {
        await expect(checkStreamEnd(stored(stream.subarray(0, cut)), cut)).rejects.toMatchObject({ code: 'PROTOCOL' });
      }
      await expect(checkStreamEnd(stored(Buffer.concat([stream, Buffer.of(0)])), bytes + 1)).rejects.toMatchObject({ code: 'PROTOCOL' });
    } finally {
      await machine.end();
    }
  });

  test('a new QEMU that waits with -incoming takes the state, and its RAM is the same', async () => {
    const source = await patternMachine(tmp('qmp'));
    const target = await startMachine(tmp('qmp2'), ['-S', '-incoming', `unix:${tmp('incoming')}`]);
    try {
      const qmp = await QmpClient.connect(source.qmpPath);
      const hash = await ramHash(qmp, 'before');
      await using spool = await Spool.beside(tmp('disk'), { direct: true });
      const bytes = await saveInto(spool, qmp);
      qmp.close();
      const incoming = await QmpClient.connect(target.qmpPath);
      const output = await openVmStateOutput(`unix:${tmp('incoming')}`);
      await sendState(new VmStateReader(spool.source(bytes)), output);
      await output.finish();
      for (let status: unknown = 'inmigrate'; status === 'inmigrate';) {
        status = (await incoming.execute('query-status') as { status: string }).status;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      expect(await ramHash(incoming, 'after')).toBe(hash);
      incoming.close();
    } finally {
      await source.end();
      await target.end();
    }
  });

  test('a machine without the description of its devices is named as such', async () => {
    const machine = await startMachine(tmp('qmp'), ['-S', '-machine', 'suppress-vmdesc=on']);
    try {
      const qmp = await QmpClient.connect(machine.qmpPath);
      await using spool = await Spool.beside(tmp('disk'));
      const bytes = await saveInto(spool, qmp);
      qmp.close();
      await expect(checkStreamEnd(spool, bytes)).rejects.toThrow('suppress-vmdesc');
    } finally {
      await machine.end();
    }
  });
});

describe('without QEMU', () => {
  test('an opaque stream may end anywhere', async () => {
    const bytes = randomBytes(1000);
    expect(await checkStreamEnd(stored(bytes), bytes.byteLength)).toBe('opaque');
  });
});
