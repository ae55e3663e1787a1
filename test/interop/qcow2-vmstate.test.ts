/** RAM state: QEMU lists ours with its size, finds its bytes where it looks for them, and manages snapshots that carry it. */
import { expect, test } from '@jest/globals';
import { createImage, openImage, Random, VmStateReader, VmStateWriter, type BlockNode } from '../../src/index.js';
import { allAgree, infoAgrees, qemuFindsNothing, snapshotId, snapshotsOf, vmStateOf, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const DISK = 3 * MiB + 512;

async function saveState(node: BlockNode, name: string, state: Uint8Array): Promise<void> {
  const writer = new VmStateWriter(vmStateOf(node));
  await writer.write(state);
  const vmStateSize = await writer.finish();
  await node.drained(() => snapshotsOf(node).create({
    name, vmStateSize, dateSeconds: 1_700_000_000, dateNanoseconds: 5, vmClockNs: 3_723_000_000_000n, icount: 42n,
  }));
}

async function loadState(path: string, name: string): Promise<Buffer> {
  return withImage(path, { readOnly: true }, async (node) => {
    const chunks: Buffer[] = [];
    for await (const chunk of new VmStateReader(await snapshotsOf(node).openVmState(snapshotId(node, name)))) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks);
  });
}

/** A disk, and a snapshot with a state of `bytes`, that begins and ends with bytes of its own. */
async function withState(clusterSize: number, bytes: number): Promise<{ path: string; twin: Twin; state: Buffer }> {
  const path = tmp('image.qcow2');
  await createImage(path, { format: 'qcow2', size: DISK, clusterSize });
  const twin = new Twin(tmp('twin.raw'), DISK);
  twin.write(1000, randomBytes(MiB, 1));
  const state = randomBytes(bytes, 2);
  state.fill(0xa1, 0, 8192).fill(0xa2, bytes - 8192);
  await withImage(path, {}, async (node) => {
    await node.write(1000, randomBytes(MiB, 1));
    await saveState(node, 'with-ram', state);
  });
  return { path, twin, state };
}

const CLUSTER_SIZES = [512, 4 * KiB, 64 * KiB, MiB, 2 * MiB];

peers('qemu-img', 'qemu-io')('RAM state of ours', () => {
  test.each(CLUSTER_SIZES)('is listed by qemu-img with its size and clock, with clusters of %d bytes', async (clusterSize) => {
    const bytes = 5 * MiB + 12_345;
    const { path, twin, state } = await withState(clusterSize, bytes);
    expect(await infoAgrees(path)).toMatchObject({
      snapshots: [{ id: '1', name: 'with-ram', 'vm-state-size': bytes, 'vm-clock-sec': 3723, 'vm-clock-nsec': 0, icount: 42 }],
    });
    const list = await runOk('qemu-img', ['snapshot', '-l', path]);
    expect(list).toMatch(/^1\s+with-ram\s+5\.01 MiB\s.*01:02:03\.000\s+42$/m);
    await allAgree(path, twin);
    expect((await loadState(path, 'with-ram')).equals(state)).toBe(true);
  });

  test.each(CLUSTER_SIZES)('lies where QEMU’s loadvm reads it, with clusters of %d bytes', async (clusterSize) => {
    const bytes = 3 * MiB;
    const { path } = await withState(clusterSize, bytes);
    await runOk('qemu-img', ['snapshot', '-a', 'with-ram', path]); // brings the state into the active tables, where -b reads
    const output = await runOk('qemu-io', ['-f', 'qcow2', '-c', 'read -b -P 0xa1 0 8192', '-c', `read -b -P 0xa2 ${bytes - 8192} 8192`, path]);
    expect(output).not.toContain('Pattern verification failed');
    expect(output.match(/read 8192\/8192 bytes/g)).toHaveLength(2);
    await qemuFindsNothing(path);
    await weFindNothing(path);
  });

  test('stays whole while QEMU and we make, apply and delete other snapshots', async () => {
    const { path, twin, state } = await withState(64 * KiB, 5 * MiB + 77);
    const unchanged = async (): Promise<void> => {
      await qemuFindsNothing(path);
      await weFindNothing(path);
      expect((await loadState(path, 'with-ram')).equals(state)).toBe(true);
    };
    await runOk('qemu-img', ['snapshot', '-a', 'with-ram', path]);
    await unchanged();
    await runOk('qemu-img', ['snapshot', '-c', 'theirs', path]);
    await unchanged();
    await withImage(path, {}, (node) => saveState(node, 'second', randomBytes(2 * MiB + 5, 9)));
    await unchanged();
    await withImage(path, {}, (node) => node.drained(() => snapshotsOf(node).apply(snapshotId(node, 'theirs'))));
    await unchanged();
    await runOk('qemu-img', ['snapshot', '-d', 'second', path]);
    await unchanged();
    await withImage(path, {}, (node) => node.drained(() => snapshotsOf(node).delete(snapshotId(node, 'theirs'))));
    await unchanged();
    await allAgree(path, twin);
    await runOk('qemu-img', ['snapshot', '-d', 'with-ram', path]);
    await allAgree(path, twin);
  });

  test('that no snapshot took leaves nothing behind', async () => {
    const { path, twin } = await withState(64 * KiB, MiB);
    const node = await openImage(path);
    const writer = new VmStateWriter(vmStateOf(node));
    await writer.write(randomBytes(3 * MiB, 4));
    await writer.finish();
    await node.close();
    await allAgree(path, twin);
    await infoAgrees(path);
  });

  test('does not grow from snapshot to snapshot', async () => {
    const path = tmp('image.qcow2');
    await createImage(path, { format: 'qcow2', size: DISK });
    const sizes: number[] = [];
    for (let round = 0; round < 4; round++) {
      await withImage(path, {}, (node) => saveState(node, `s${round}`, randomBytes(4 * MiB, round)));
      sizes.push((await weFindNothing(path)).imageEndOffset);
    }
    for (let round = 1; round < 4; round++) expect(sizes[round]! - sizes[round - 1]!).toBeLessThan(4.5 * MiB);
  });
});

peers('qemu-img', 'qemu-io')('RAM state of QEMU', () => {
  test('left in the active tables by qemu-io does not get into our snapshot, and does not leak', async () => {
    const path = tmp('image.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(DISK)]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -b -P 0x61 0 3M', '-c', 'write -q -P 0x62 0 1M', path]);
    const twin = new Twin(tmp('twin.raw'), DISK);
    twin.write(0, Buffer.alloc(MiB, 0x62));
    await allAgree(path, twin);
    await withImage(path, {}, (node) => saveState(node, 'ours', randomBytes(MiB, 3)));
    await allAgree(path, twin);
    expect((await loadState(path, 'ours')).equals(randomBytes(MiB, 3))).toBe(true);
    expect((await weFindNothing(path)).imageEndOffset).toBeLessThan(7 * MiB);
  });

  test.each([1, 2, 3])('and of ours, taken, applied and deleted in random order (seed %d)', async (seed) => {
    const path = tmp('image.qcow2');
    await createImage(path, { format: 'qcow2', size: DISK, clusterSize: 4 * KiB });
    const random = new Random(seed);
    const states = new Map<string, Buffer>();
    for (let round = 0; round < 14; round++) {
      const name = `s${round}`;
      const names = [...states.keys()];
      const kind = random.below(6);
      if (kind === 0) {
        await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -b -P ${round + 1} ${512 * random.below(2048)} ${512 * (1 + random.below(2048))}`, path]);
      } else if (kind < 3 || names.length === 0) {
        states.set(name, randomBytes(1 + random.below(2 * MiB), round));
        await withImage(path, {}, (node) => saveState(node, name, states.get(name)!));
      } else if (kind === 3) {
        await runOk('qemu-img', ['snapshot', '-a', random.pick(names), path]);
      } else if (kind === 4) {
        const gone = random.pick(names);
        await runOk('qemu-img', ['snapshot', '-d', gone, path]);
        states.delete(gone);
      } else {
        const back = random.pick(names);
        await withImage(path, {}, (node) => node.drained(() => snapshotsOf(node).apply(snapshotId(node, back))));
      }
      await qemuFindsNothing(path);
      await weFindNothing(path);
      for (const [kept, state] of states) expect((await loadState(path, kept)).equals(state)).toBe(true);
    }
  });
});
