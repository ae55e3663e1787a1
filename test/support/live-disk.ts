/** A disk that is in use: our storage daemon exports an image, and a machine boots from the export and writes to it. */
import { readFileSync, statSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';
import { openImage, QmpClient } from '../../src/index.js';
import { waitFor } from './cli.js';
import { kill, repository, start } from './run.js';

const SLOTS = 64;
const SLOT_BYTES = 4096;
const FIRST_SLOT = 64 * 512;

/** Writes the number n to the whole slot n % 64, in one request each; tells n on port e9 when the write was answered; n = 1, 2, … */
const CODE = Buffer.from([
  [0x31, 0xc0], [0x8e, 0xd8], [0x8e, 0xc0], [0x8e, 0xd0], [0xbc, 0x00, 0x7c], [0xfc], // ds = es = ss = 0, sp, direction
  [0x66, 0xc7, 0x06, 0x00, 0x06, 0, 0, 0, 0], // n at 600 = 0
  [0x66, 0xff, 0x06, 0x00, 0x06], [0x66, 0xa1, 0x00, 0x06], // again: eax = ++n
  [0xbf, 0x00, 0x80], [0xb9, 0x00, 0x04], [0x66, 0xf3, 0xab], // fill 4 KiB at 8000 with it
  [0x83, 0xe0, 0x3f], [0xc1, 0xe0, 0x03], [0x83, 0xc0, 0x40], [0xa3, 0x18, 0x06], // the sector: 64 + n % 64 * 8
  [0xc7, 0x06, 0x10, 0x06, 0x10, 0x00], [0xc7, 0x06, 0x12, 0x06, 0x08, 0x00], // address packet at 610: its size, 8 sectors
  [0xc7, 0x06, 0x14, 0x06, 0x00, 0x80], [0xc7, 0x06, 0x16, 0x06, 0x00, 0x00], // from 8000
  [0xc7, 0x06, 0x1a, 0x06, 0x00, 0x00], [0x66, 0xc7, 0x06, 0x1c, 0x06, 0, 0, 0, 0],
  [0xbe, 0x10, 0x06], [0xb8, 0x00, 0x43], [0xb2, 0x80], [0xcd, 0x13], // BIOS: extended write
  [0x72, 0x0d], // failed: halt
  [0xbe, 0x00, 0x06], [0xb9, 0x04, 0x00], [0xac], [0xe6, 0xe9], [0xe2, 0xfb], // tell n
  [0xeb, 0xa2], // again
  [0xf4], [0xeb, 0xfd],
].flat());

/** Makes the disk one that boots into the writer. */
export async function installWriter(image: string): Promise<void> {
  const boot = Buffer.alloc(512);
  CODE.copy(boot);
  boot.writeUInt16LE(0xaa55, 510);
  const node = await openImage(image, { format: 'qcow2' });
  await node.write(0, boot);
  await node.close();
}

/** The number of the last write of a disk that holds all writes up to one, none after it, and each of them whole; throws where it does not. */
export async function lastWrite(image: string, snapshot: string | null): Promise<number> {
  const node = await openImage(image, { format: 'qcow2', readOnly: true, ...snapshot === null ? {} : { snapshot } });
  const bytes = new Uint8Array(SLOTS * SLOT_BYTES);
  await node.read(FIRST_SLOT, bytes);
  await node.close();
  const view = new DataView(bytes.buffer);
  const found = Array.from({ length: SLOTS }, (_, slot) => view.getUint32(slot * SLOT_BYTES, true));
  for (let at = 0; at < bytes.byteLength; at += 4) {
    if (view.getUint32(at, true) !== found[Math.floor(at / SLOT_BYTES)]) throw new Error(`slot ${Math.floor(at / SLOT_BYTES)} is torn at ${at % SLOT_BYTES}`);
  }
  const last = Math.max(...found);
  for (const [slot, value] of found.entries()) {
    const wanted = last - ((last - slot) % SLOTS + SLOTS) % SLOTS;
    if (value !== Math.max(0, wanted)) throw new Error(`slot ${slot} holds ${value} where the last write is ${last}: ${found.join(' ')}`);
  }
  return last;
}

/** What the writer has told so far, oldest first. */
export function acknowledged(log: string): number[] {
  const bytes = readFileSync(log);
  return Array.from({ length: Math.floor(bytes.byteLength / 4) }, (_, index) => bytes.readUInt32LE(index * 4));
}

/** Resolves when the writer has told `more` further writes. */
export async function writesOn(log: string, more: number): Promise<void> {
  const told = (): number => { try { return statSync(log).size / 4; } catch { return 0; } };
  const before = told();
  await waitFor(`${more} writes by the guest`, () => told() >= before + more);
}

export interface LiveDisk {
  /** The daemon's monitor, free for the command under test. */
  readonly monitor: string;
  /** Of the test's own. */
  readonly qmp: QmpClient;
  readonly nbd: string;
  /** Ends the daemon in order. */
  end(): Promise<void>;
  /** kill -9 */
  kill(): Promise<void>;
}

const daemons = new Set<ChildProcess>();

/** Those of tests that failed. */
afterEach(async () => {
  for (const child of daemons) await kill(child);
  daemons.clear();
});

/** Node `disk` over the image, exported as `disk`. `file`: other options of what lies below it. */
export async function startLiveDisk(directory: string, image: string, file = `file.driver=file,file.filename=${image}`): Promise<LiveDisk> {
  const [monitor, own, nbd] = [join(directory, 'monitor'), join(directory, 'own'), join(directory, 'nbd')];
  const child = start(join(repository, 'cli', 'quiesce-storage-daemon'), [
    ...['a', 'b'].flatMap((id) => ['--chardev', `socket,id=${id},path=${id === 'a' ? monitor : own},server=on,wait=off`, '--monitor', `chardev=${id}`]),
    '--blockdev', `driver=qcow2,node-name=disk,discard=unmap,${file}`,
    '--nbd-server', `addr.type=unix,addr.path=${nbd}`, '--export', 'type=nbd,id=e,node-name=disk,name=disk,writable=on',
  ], { env: { TMPDIR: directory } });
  daemons.add(child);
  let stderr = '';
  child.stderr!.on('data', (data: Buffer) => { stderr += data.toString(); });
  let qmp: QmpClient | null = null;
  await waitFor('the daemon listens', async () => {
    if (child.exitCode !== null) throw new Error(`the daemon did not start: ${stderr}`);
    if (statSync(nbd, { throwIfNoEntry: false }) !== undefined) qmp = await QmpClient.connect(own).catch(() => null);
    return qmp !== null;
  });
  const gone = async (signal: NodeJS.Signals): Promise<void> => {
    qmp?.close();
    await kill(child, signal);
  };
  return { monitor, qmp: qmp!, nbd, end: () => gone('SIGTERM'), kill: () => gone('SIGKILL') };
}

/** Arguments of a machine that boots from the export, or from the image itself. */
export function guestArgs(disk: { readonly nbd: string } | { readonly image: string }, log: string): string[] {
  const blockdev = 'nbd' in disk
    ? `driver=nbd,node-name=d0,server.type=unix,server.path=${disk.nbd},export=disk`
    : `driver=qcow2,node-name=d0,file.driver=file,file.filename=${disk.image}`;
  return ['-blockdev', blockdev, '-device', 'virtio-blk-pci,drive=d0,id=disk0,bootindex=0', '-debugcon', `file:${log}`];
}
