/** Filters and overlays come and go, nodes are reopened, while requests are in flight: nothing is lost or torn. */
import { expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockGraph } from '../../src/block/graph.js';
import type { BlockBackend } from '../../src/block/backend.js';
import { BlockNode } from '../../src/block/node.js';
import { Permission } from '../../src/block/permissions.js';
import { makeRequest, type BlockRequest } from '../../src/block/request.js';
import { ThrottleGroup } from '../../src/block/throttle.js';
import { openBlockdev } from '../../src/image/blockdev.js';
import { putOverlay, type Overlaid } from '../../src/daemon/overlay.js';
import { bypassFilter, insertFilter } from '../../src/image/graph-edit.js';
import { createImage, openImage } from '../../src/image/open.js';
import { reopenBlockdevs } from '../../src/image/reopen.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const DISK = 2 ** 20;
const UNIT = 4096;
const WORKERS = 6;

/** Each worker owns every n-th unit of the disk, so that its own view of them is the model. */
class Worker {
  readonly model = new Map<number, number>();
  readonly #door: BlockBackend;
  readonly #index: number;
  readonly #random: Random;

  constructor(door: BlockBackend, index: number, random: Random) {
    this.#door = door;
    this.#index = index;
    this.#random = random;
  }

  async run(stopped: () => boolean): Promise<number> {
    let requests = 0;
    for (; !stopped(); requests++) {
      const unit = this.#random.below(Math.floor(DISK / UNIT / WORKERS)) * WORKERS + this.#index;
      const kind = this.#random.below(10);
      if (kind < 6) await this.#write(unit, 1 + this.#random.below(255));
      else if (kind === 6) await this.#zero(unit);
      else await this.check(unit);
    }
    return requests;
  }

  async #write(unit: number, value: number): Promise<void> {
    const data = Buffer.alloc(UNIT, value);
    await this.#door.submit(makeRequest('write', unit * UNIT, UNIT, data));
    this.model.set(unit, value);
  }

  async #zero(unit: number): Promise<void> {
    await this.#door.submit(makeRequest('write-zeroes', unit * UNIT, UNIT, null));
    this.model.set(unit, 0);
  }

  async check(unit: number): Promise<void> {
    const found = Buffer.alloc(UNIT, 0xee);
    await this.#door.submit(makeRequest('read', unit * UNIT, UNIT, found));
    const value = this.model.get(unit) ?? 0;
    const odd = found.findIndex((byte) => byte !== value);
    expect({ unit, odd, found: odd < 0 ? value : found[odd] }).toEqual({ unit, odd: -1, found: value });
  }
}

const FILTER_OPTIONS = {
  preallocate: (file: string) => ({ file }),
  blkdebug: (image: string) => ({ image, align: 512 }),
  'copy-on-read': (file: string) => ({ file }),
  throttle: (file: string) => ({ file, 'throttle-group': 'slow' }),
} as const;

/** What stands between the door and the first image: the top of it takes the users. */
class Editor {
  readonly #graph: BlockGraph;
  readonly #door: BlockBackend;
  readonly #random: Random;
  readonly #filters: BlockNode[] = [];
  readonly #slow = new ThrottleGroup('slow', { 'iops-total': 2000 });
  images = 1;
  #names = 0;

  constructor(graph: BlockGraph, door: BlockBackend, random: Random) {
    this.#graph = graph;
    this.#door = door;
    this.#random = random;
  }

  async edit(): Promise<void> {
    const kind = this.#random.below(8);
    if (kind < 3) await this.#insert();
    else if (kind < 5 && this.#filters.length > 0) await this.#remove();
    else if (kind === 5 && this.images < 4) await this.#overlay();
    else await this.#reopen();
  }

  /** The image that is written now. */
  image(): BlockNode {
    let node = this.#door.node;
    while (node.driver.kind === 'filter') node = node.children[0]!.node;
    return node;
  }

  async #insert(): Promise<void> {
    const below = this.#random.chance(0.5) ? this.#door.node : this.image();
    const name = `filter${this.#names++}`;
    const driver = this.#random.pick(['preallocate', 'blkdebug', 'copy-on-read', 'throttle'] as const);
    const filter = await openBlockdev(this.#graph, { driver, 'node-name': name, ...FILTER_OPTIONS[driver](below.nodeName) }, { throttleGroup: () => this.#slow });
    await insertFilter(this.#graph, below, filter);
    this.#filters.push(filter);
  }

  async #remove(): Promise<void> {
    const [filter] = this.#filters.splice(this.#random.below(this.#filters.length), 1);
    await bypassFilter(this.#graph, filter!);
    await this.#graph.remove(filter!.nodeName);
  }

  async #overlay(): Promise<void> {
    const path = tmp(`overlay${this.images}.qcow2`);
    const below = this.#door.node;
    await createImage(path, { format: 'qcow2', size: DISK, backingFile: `overlay${this.images - 1}.qcow2`, backingFormat: 'qcow2', backingUnchecked: true });
    const overlay = await openBlockdev(this.#graph, { driver: 'qcow2', 'node-name': `image${this.images}`, file: { driver: 'file', filename: path }, backing: null });
    if (this.#random.chance(0.7)) return this.#keep(await putOverlay(this.#graph, overlay, below));
    // as in a transaction that fails
    await below.drained(async () => {
      const overlaid = await putOverlay(this.#graph, overlay, below);
      await new Promise((resolve) => setTimeout(resolve, 2));
      await overlaid.undo();
    });
    await this.#graph.remove(overlay.nodeName);
  }

  async #keep(overlaid: Overlaid): Promise<void> {
    await overlaid.settle().catch(() => {}); // a filter that cannot be reopened: it stays as it is
    // filters below the overlay are part of what it lies on
    this.#filters.length = 0;
    this.images++;
  }

  async #reopen(): Promise<void> {
    const image = this.image();
    const lazy = this.#random.chance(0.5);
    await reopenBlockdevs(this.#graph, [{
      driver: 'qcow2', 'node-name': image.nodeName, file: image.children[0]!.node.nodeName, backing: image.backing?.nodeName ?? null,
      'lazy-refcounts': lazy, 'l2-cache-size': 512 * (1 + this.#random.below(64)), 'detect-zeroes': lazy ? 'on' : 'off',
    }]);
  }
}

test.each([1, 2, 3])('requests in flight while the graph changes (seed %i)', async (seed) => {
  const random = new Random(seed);
  const graph = new BlockGraph();
  await createImage(tmp('overlay0.qcow2'), { format: 'qcow2', size: DISK });
  const first = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'image0', file: { driver: 'file', filename: tmp('overlay0.qcow2') } });
  const all = Permission.CONSISTENT_READ | Permission.WRITE;
  const door = await graph.attach(first, { used: all, shared: Permission.ALL });
  const workers = Array.from({ length: WORKERS }, (_, index) => new Worker(door, index, new Random(seed * 100 + index)));
  const editor = new Editor(graph, door, random);
  let done = false;
  const running = workers.map((worker) => worker.run(() => done));
  try {
    for (let edits = 0; edits < 60; edits++) {
      await editor.edit();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  } finally {
    done = true;
  }
  const requests = (await Promise.all(running)).reduce((sum, count) => sum + count, 0);
  expect(requests).toBeGreaterThan(100);
  for (const worker of workers) for (const unit of worker.model.keys()) await worker.check(unit);
  const top = editor.images - 1;
  await graph.detach(door);
  await graph.closeAll();
  await using disk = await openImage(tmp(`overlay${top}.qcow2`), { readOnly: true });
  const found = Buffer.alloc(DISK);
  await disk.read(0, found);
  for (const { model } of workers) for (const [unit, value] of model) expect([unit, found[unit * UNIT], found[unit * UNIT + UNIT - 1]]).toEqual([unit, value, value]);
  expect(await disk.driver.check!({})).toMatchObject({ corruptions: 0, checkErrors: 0 });
});

/** Writes reach the disk when the test says so. */
class SlowDriver extends MemoryDriver {
  land: () => void = () => {};
  readonly #landing = new Promise<void>((resolve) => { this.land = resolve; });

  override async submit(request: BlockRequest): Promise<void> {
    if (request.op === 'write') await this.#landing;
    return super.submit(request);
  }
}

test('an overlay copies nothing of a cluster while a write to the image below is under way in it', async () => {
  const graph = new BlockGraph();
  const slow = new SlowDriver({ bytes: DISK, growable: false });
  const base = new BlockNode({ name: 'base', nodeName: graph.takeName('base'), driver: slow, pinned: true });
  graph.add(base);
  const path = tmp('slow-overlay.qcow2');
  await createImage(path, { format: 'qcow2', size: DISK });
  const overlay = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'overlay', file: { driver: 'file', filename: path } });
  const door = await graph.attach(base, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL });
  const below = door.submit(makeRequest('write', 0, UNIT, Buffer.alloc(UNIT, 1)));
  const put = putOverlay(graph, overlay, base).then((overlaid) => overlaid.settle());
  // of the same cluster: what surrounds it comes from below
  const above = new Promise((resolve) => setTimeout(resolve, 20)).then(() => door.submit(makeRequest('write', UNIT, UNIT, Buffer.alloc(UNIT, 2))));
  await new Promise((resolve) => setTimeout(resolve, 60));
  slow.land();
  await Promise.all([below, put, above]);
  expect(door.node).toBe(overlay);
  const found = Buffer.alloc(3 * UNIT, 0xee);
  await door.submit(makeRequest('read', 0, 3 * UNIT, found));
  expect([found[0], found[UNIT - 1], found[UNIT], found[2 * UNIT - 1], found[2 * UNIT]]).toEqual([1, 1, 2, 2, 0]);
  await graph.detach(door);
  await graph.closeAll();
});
