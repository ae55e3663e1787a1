/** What must hold of an image after a power cut: see `verifySurvivor`. */
import { BlockNode } from '../../src/block/node.js';
import { openQcow2, type Qcow2Driver } from '../../src/format/qcow2/qcow2.js';
import type { Qcow2OpenOptions } from '../../src/format/qcow2/options.js';
import type { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { readReferences } from '../support/qcow2-references.js';
import { SECTOR_BYTES } from '../support/sector-history.js';
import { fileBytes } from '../support/storage.js';
import { GuestBitmaps } from './guest-bitmaps.js';
import { expectSame, idIn, type Guest, type Saved } from './guest.js';

export interface Opened {
  readonly node: BlockNode;
  readonly driver: Qcow2Driver;
}

export async function openOn(storage: MemoryDriver | BlockNode, options: Qcow2OpenOptions): Promise<Opened> {
  const file = storage instanceof BlockNode ? storage : new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  const driver = await openQcow2(file, options);
  return { driver, node: new BlockNode({ name: 'qcow2', driver, readOnly: options.snapshot !== undefined }) };
}

/** No refcount is too low and no shared cluster is marked as owned, in the bytes of the file. */
export function expectSoundReferences(content: Uint8Array, when: string): void {
  const { problems } = readReferences(content);
  if (problems.length > 0) throw new Error(`${when}: ${problems.slice(0, 8).join('; ')}`);
}

/**
 * Opens what survived a power cut and holds it against what the guest knows: references, disk, snapshots and states;
 * own check finds leaks at most, and nothing once they are repaired. The guest takes the survivor over.
 */
export async function verifySurvivor(storage: MemoryDriver, guest: Guest, options: Qcow2OpenOptions, repairLeaks: boolean): Promise<void> {
  const crashed = await fileBytes(storage);
  // With lazy refcounts, they are only right after the repair that the dirty bit demands
  if (!readReferences(crashed).dirty) expectSoundReferences(crashed, 'after the power cut');
  const { node, driver } = await openOn(storage, options);
  expectSoundReferences(await fileBytes(storage), 'after opening');
  const names = expectSnapshotList(driver, guest);
  expectBackingName(driver, guest);
  const disk = new Uint8Array(node.length());
  await node.read(0, disk);
  expectPossibleDisk(disk, guest);
  guest.bitmaps.expectHonest(crashed, disk);
  guest.attach(node, driver);
  guest.adopt(disk, names);
  guest.bitmaps.adopt(node);
  await expectSnapshots(storage, driver, guest, options);
  await expectLeaksAtMost(driver, repairLeaks);
  await node.close();
}

/** Nothing was lost in an orderly shutdown; `sums` are those of the bitmaps before it. */
export async function verifyClosed(storage: MemoryDriver, guest: Guest, options: Qcow2OpenOptions, sums = ''): Promise<void> {
  expectSoundReferences(await fileBytes(storage), 'after closing');
  const { node, driver } = await openOn(storage, options);
  const disk = new Uint8Array(node.length());
  await node.read(0, disk);
  expectSame(disk, guest.history.current, 'the disk after closing');
  expectBackingName(driver, guest);
  guest.bitmaps.expectHonest(await fileBytes(storage), disk);
  if (GuestBitmaps.sums(node) !== sums) throw new Error(`the bitmaps after closing: ${GuestBitmaps.sums(node)}\nbefore: ${sums}`);
  await expectSnapshots(storage, driver, guest, options);
  await node.close();
}

function expectSnapshotList(driver: Qcow2Driver, guest: Guest): string[] {
  const actual = driver.snapshots.list().map(({ name }) => name);
  const { pending } = guest;
  const before = [...guest.snapshots.keys()];
  const allowed = [before];
  if (pending?.kind === 'create') allowed.push([...before, pending.name]);
  if (pending?.kind === 'delete') allowed.push(before.filter((name) => name !== pending.name));
  if (!allowed.some((names) => names.join() === actual.join())) {
    throw new Error(`the snapshots are [${actual.join()}] instead of ${allowed.map((names) => `[${names.join()}]`).join(' or ')}`);
  }
  return actual;
}

function expectBackingName(driver: Qcow2Driver, { backingName, pending }: Guest): void {
  const { backingFile, backingFormat } = driver.header;
  const renamed = pending?.kind === 'rename backing' && backingFile === pending.name;
  if (backingFile !== backingName && !renamed) throw new Error(`the backing file is called ${backingFile} instead of ${backingName}`);
  if (backingFile !== null && backingFormat !== 'raw') throw new Error(`the backing format is ${backingFormat}`);
}

function expectPossibleDisk(disk: Uint8Array, guest: Guest): void {
  const { pending } = guest;
  const applied = pending?.kind === 'apply' ? guest.snapshots.get(pending.name)!.disk : null;
  if (applied !== null && Buffer.compare(disk, applied) === 0) return;
  const grown = pending?.kind === 'resize' && disk.byteLength === pending.size;
  if (disk.byteLength !== guest.size && !grown) throw new Error(`the disk has ${disk.byteLength} bytes instead of ${guest.size}`);
  for (let sector = 0; sector * SECTOR_BYTES < disk.byteLength; sector++) {
    const bytes = disk.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    if (sector * SECTOR_BYTES >= guest.size) expectSame(bytes, new Uint8Array(SECTOR_BYTES), `new sector ${sector}`);
    else if (!guest.history.allows(sector, bytes)) throw new Error(describeSector(sector, bytes, guest));
  }
}

function describeSector(sector: number, bytes: Uint8Array, guest: Guest): string {
  const { history } = guest;
  const matches: string[] = [];
  for (let other = 0; other * SECTOR_BYTES < history.length; other++) {
    if (history.allows(other, bytes)) matches.push(`of sector ${other}`);
  }
  for (const [name, { disk }] of guest.snapshots) {
    if (Buffer.compare(disk.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES), bytes) === 0) matches.push(`of snapshot ${name}`);
  }
  const zero = bytes.every((byte) => byte === 0);
  return `sector ${sector} holds none of its ${history.versions(sector).length + 1} possible versions, but ` +
    (zero ? 'zeros' : matches.length > 0 ? `data ${matches.slice(0, 4).join(', ')}` : 'something never written');
}

/** Every snapshot is exact: its disk through a read-only open, its state through the table. */
async function expectSnapshots(storage: MemoryDriver, driver: Qcow2Driver, guest: Guest, options: Qcow2OpenOptions): Promise<void> {
  for (const [name, saved] of guest.snapshots) {
    await expectState(driver, idIn(driver, name), name, saved);
    const { node } = await openOn(storage, { ...options, snapshot: name });
    const disk = new Uint8Array(node.length());
    await node.read(0, disk);
    expectSame(disk, saved.disk, `the disk of snapshot ${name}`);
    await node.close();
  }
}

async function expectState(driver: Qcow2Driver, id: string, name: string, saved: Saved): Promise<void> {
  const source = await driver.snapshots.openVmState(id);
  const state = new Uint8Array(source.size);
  for (let at = 0; at < source.size;) at += await source.load(at, state.subarray(at));
  expectSame(state, saved.state, `the state of snapshot ${name}`);
}

async function expectLeaksAtMost(driver: Qcow2Driver, repairLeaks: boolean): Promise<void> {
  const found = await driver.check({});
  // A leaked reference makes a COPIED flag look wrong that is right: the cluster has one owner
  const damage = found.messages.filter((message) => !/^leaked cluster|^the COPIED flag/.test(message));
  if (damage.length > 0 || found.checkErrors > 0) throw new Error(`check: ${damage.slice(0, 5).join('; ')}`);
  if (!repairLeaks) return;
  await driver.check({ repair: 'leaks' });
  const { corruptions, leaks, checkErrors, messages } = await driver.check({});
  if (corruptions + leaks + checkErrors > 0) throw new Error(`check after the repair of leaks: ${messages.slice(0, 5).join('; ')}`);
}
