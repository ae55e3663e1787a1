/**
 * Clients of one export, each on a connection of its own, and the power goes: what one of them was told is written lasts
 * once any of them was told of a flush that began later, and a FUA write lasts when it is answered.
 */
import { afterEach, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockBackend } from '../../src/block/backend.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { RawDriver } from '../../src/format/raw.js';
import { NbdClient } from '../../src/nbd/client.js';
import { NbdServer } from '../../src/nbd/server.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { SECTOR_BYTES, SectorHistory, type Write } from '../support/sector-history.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes, memoryOf } from '../support/storage.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SEEDS = Number(process.env['SEEDS'] ?? 14);
const WRITERS = 3;
const KiB = 1024;
const ZONE = 64 * KiB;
const SIZE = (WRITERS + 1) * ZONE;
const servers: NbdServer[] = [];
afterEach(async () => {
  // what the dead disk holds never ends
  for (const server of servers.splice(0)) void server.close();
});

/** Counts acknowledgements over all clients. */
let tick = 0;

/** One client's part of the disk, and what may be left of it. */
class Zone {
  readonly history = new SectorHistory(new Uint8Array(ZONE));
  readonly #client: NbdClient;
  readonly #start: number;
  readonly #random: Random;
  readonly #fua: boolean;

  constructor(client: NbdClient, index: number, random: Random, fua: boolean) {
    this.#client = client;
    this.#start = index * ZONE;
    this.#random = random;
    this.#fua = fua;
  }

  /** Until the power goes. */
  async work(): Promise<never> {
    for (;;) await this.#step();
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const at = random.below(ZONE / SECTOR_BYTES) * SECTOR_BYTES;
    const bytes = Math.min(ZONE - at, (1 + random.below(16)) * SECTOR_BYTES);
    const write: Write = { completedAt: Infinity };
    if (random.chance(0.2)) {
      this.history.zero(write, at, bytes);
      await this.#client.writeZeroes(this.#start + at, bytes, { fua: this.#fua });
    } else {
      const data = new Uint8Array(bytes).fill(1 + random.below(255));
      this.history.write(write, at, data);
      await this.#client.write(this.#start + at, data, { fua: this.#fua });
    }
    write.completedAt = ++tick;
    // here every write is a FUA write, so all that was answered lasts
    if (this.#fua) this.history.flush(tick + 1);
  }

  /** The first sector that holds what it cannot. */
  impossible(disk: Uint8Array): number | null {
    for (let at = 0; at < ZONE; at += SECTOR_BYTES) {
      const found = disk.subarray(this.#start + at, this.#start + at + SECTOR_BYTES);
      if (!this.history.allows(at / SECTOR_BYTES, found)) return this.#start + at;
    }
    return null;
  }
}

async function flushAgain(client: NbdClient, zones: readonly Zone[], random: Random, flushed: () => void): Promise<never> {
  for (;;) {
    for (let left = random.below(6); left > 0; left--) await client.read(random.below(SIZE / KiB) * KiB, new Uint8Array(KiB));
    const begun = ++tick;
    await client.flush();
    for (const { history } of zones) history.flush(begun);
    flushed();
  }
}

type Format = 'raw' | 'qcow2';

async function open(file: BlockNode, format: Format): Promise<BlockNode> {
  return new BlockNode({ name: 'image', driver: format === 'raw' ? new RawDriver(file) : await openQcow2(file, {}) });
}

async function freshImage(format: Format): Promise<Uint8Array> {
  const memory = new MemoryDriver();
  if (format === 'raw') return new Uint8Array(SIZE);
  await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(memory) }), { size: SIZE, clusterSize: 4 * KiB });
  return fileBytes(memory);
}

/** Returns how many flushes were answered. */
async function cutUnderClients(format: Format, seed: number): Promise<number> {
  const random = new Random(seed);
  const disk = new SimDisk({ content: await freshImage(format), random: new Random(seed + 1), alignment: random.pick([1, 512]) });
  const node = await open(new BlockNode({ name: 'file', driver: disk }), format);
  const server = new NbdServer({ closeTimeoutMs: 1 });
  servers.push(server);
  server.addExport({ name: '', description: null, backend: new BlockBackend('', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
  const path = tmp(`s${seed}`);
  await server.listen({ unix: path });
  const clients = await Promise.all(Array.from({ length: WRITERS + 2 }, () => NbdClient.open({ address: { type: 'unix', path } })));
  const zones = clients.slice(1).map((client, index) => new Zone(client, index, new Random(seed * 100 + index), index === WRITERS));
  let flushes = 0;
  disk.cutIn(50 + random.below(format === 'raw' ? 600 : 1500));
  const running = [flushAgain(clients[0]!, zones.slice(0, WRITERS), random, () => { flushes++; }), ...zones.map((zone) => zone.work())];
  const stopped = Promise.race(running).catch((error: unknown) => error);
  const failure = await Promise.race([stopped, disk.powerCut]);
  if (failure !== undefined) throw failure as Error;
  // answers that were on their way arrive
  await new Promise((resolve) => { setTimeout(resolve, 5); });
  disk.kill();
  const survivor = await memoryOf(disk.survivors(random));
  const left = await open(new BlockNode({ name: 'file', driver: survivor }), format);
  const found = new Uint8Array(SIZE);
  await left.read(0, found.subarray(0, Math.min(SIZE, left.length())));
  for (const zone of zones) expect({ seed, format, impossible: zone.impossible(found) }).toEqual({ seed, format, impossible: null });
  await left.close();
  for (const client of clients) client.cancelInFlight();
  return flushes;
}

test.each(['raw', 'qcow2'] as const)('a flush through one connection covers what the others were told, on %s', async (format) => {
  let flushes = 0;
  for (let seed = 1; seed <= SEEDS; seed++) flushes += await cutUnderClients(format, seed);
  expect(flushes).toBeGreaterThan(SEEDS);
}, 120_000);
