/** QEMU's opinion of images that survived a power cut. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readReferences } from '../support/qcow2-references.js';
import { run, runOk } from '../support/run.js';
import { expectSame, type Guest } from './guest.js';
import type { Scenario } from './scenario.js';

async function withFiles<T>(image: Uint8Array, scenario: Scenario, work: (path: string, folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(process.env['QUIESCE_TMP'] ?? tmpdir(), 'quiesce-sim-'));
  try {
    const path = join(folder, 'image.qcow2');
    writeFileSync(path, image);
    if (scenario.backing !== null) writeFileSync(join(folder, 'backing.raw'), scenario.backing);
    return await work(path, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** `qemu-img check -r leaks` leaves nothing for the next check to find. */
export async function expectQemuRepairs(image: Uint8Array, scenario: Scenario): Promise<void> {
  await withFiles(image, scenario, async (path) => {
    // QEMU repairs a dirty image when it opens it for writing, but not where it opens it for a check
    if (readReferences(image).dirty) await runOk('qemu-io', ['-c', 'flush', path]);
    const repair = await run('qemu-img', ['check', '-r', 'leaks', path]);
    const check = await run('qemu-img', ['check', path]);
    if (check.code !== 0) throw new Error(`qemu-img check after the repair of leaks: ${check.stdout}${check.stderr}\nthe repair: ${repair.stdout}${repair.stderr}`);
  });
}

/** QEMU reads the disk, and every snapshot, as we do. */
export async function expectQemuReads(image: Uint8Array, scenario: Scenario, guest: Guest): Promise<void> {
  await withFiles(image, scenario, async (path, folder) => {
    await runOk('qemu-img', ['check', path]);
    const raw = join(folder, 'out.raw');
    await runOk('qemu-img', ['convert', '-O', 'raw', path, raw]);
    expectSame(readFileSync(raw), guest.history.current, 'what qemu-img reads');
    for (const [name, { disk }] of guest.snapshots) {
      await runOk('qemu-img', ['convert', '-l', `snapshot.name=${name}`, '-O', 'raw', path, raw]);
      // It reads every snapshot at the size that the active disk has
      const read = readFileSync(raw).subarray(0, disk.byteLength);
      expectSame(read, disk.subarray(0, read.byteLength), `what qemu-img reads of snapshot ${name}`);
    }
  });
}
