/** The bitmaps extension is put into headers of every shape; wherever the writes stop, the header can be read. */
import { describe, expect, test } from '@jest/globals';
import { BlockChild } from '../../../../src/block/child.js';
import { BlockNode } from '../../../../src/block/node.js';
import type { BlockRequest } from '../../../../src/block/request.js';
import { trustedExtension, type BitmapExtension } from '../../../../src/format/qcow2/bitmap-directory.js';
import { buildHeader, HeaderStore, parseHeader } from '../../../../src/format/qcow2/header.js';
import { dropBitmaps, hasRoomForBitmaps, switchBitmaps } from '../../../../src/format/qcow2/header-bitmaps.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';

const SECTOR = 512;

/** Keeps what the file was before each sector that was written. */
class Recorder extends MemoryDriver {
  readonly states: Uint8Array[] = [];
  #content: Uint8Array;

  constructor(content: Uint8Array) {
    super();
    this.#content = content.slice();
  }

  override async submit(request: BlockRequest): Promise<void> {
    await super.submit(request);
    if (request.op !== 'write') return;
    for (let at = 0; at < request.bytes;) {
      const end = Math.min(request.bytes, at + SECTOR - ((request.offset + at) % SECTOR));
      this.#content = this.#content.slice();
      this.#content.set(request.buffer!.subarray(at, end), request.offset + at);
      this.states.push(this.#content);
      at = end;
    }
  }
}

interface Shape {
  readonly clusterBits: number;
  readonly backing: string | null;
  /** Bytes of an unknown extension in front. */
  readonly unknown?: number;
}

function headerOf({ clusterBits, backing, unknown }: Shape): Uint8Array {
  const cluster = buildHeader({
    version: 3, clusterBits, refcountOrder: 4, size: 2 ** 20, l1: { offset: 3 * 2 ** clusterBits, entries: 128 },
    refcountTable: { offset: 2 ** clusterBits, clusters: 1 }, lazyRefcounts: false, backingFile: backing, backingFormat: backing === null ? null : 'raw',
  });
  if (unknown === undefined) return cluster;
  const { extensionsEnd } = parseHeader(cluster, 'x');
  const view = new DataView(cluster.buffer);
  view.setUint32(extensionsEnd, 0x1234_5678);
  view.setUint32(extensionsEnd + 4, unknown);
  return cluster;
}

async function storeOf(shape: Shape): Promise<{ store: HeaderStore; recorder: Recorder }> {
  const content = headerOf(shape);
  const recorder = new Recorder(content);
  const node = new BlockNode({ name: 'image', driver: recorder });
  await node.write(0, content);
  recorder.states.length = 0;
  return { store: new HeaderStore(new BlockChild('file', 'file', node), parseHeader(content, 'image'), content), recorder };
}

const FIRST = { count: 1, directoryBytes: 32, directoryOffset: 2 ** 30 };
const SECOND = { count: 2, directoryBytes: 72, directoryOffset: 2 ** 40 };

const SHAPES: readonly (readonly [string, Shape])[] = [
  ['in one sector', { clusterBits: 9, backing: null }],
  ['in one sector, with a backing file', { clusterBits: 9, backing: 'base.raw' }],
  ['behind the feature names', { clusterBits: 16, backing: null }],
  ['where the backing file name is in the way', { clusterBits: 16, backing: 'a'.repeat(900) }],
  ['across two sectors', { clusterBits: 12, backing: null, unknown: 488 }],
  ['across two sectors by eight bytes', { clusterBits: 12, backing: null, unknown: 496 }],
];

describe('the bitmaps extension', () => {
  test.each(SHAPES)('%s', async (_, shape) => {
    const { store, recorder } = await storeOf(shape);
    const before = parseHeader(headerOf(shape), 'image');
    expect(hasRoomForBitmaps(store)).toBe(true);
    const steps: readonly (readonly [step: () => Promise<void>, meanwhile: readonly (BitmapExtension | null)[], after: BitmapExtension | null])[] = [
      [() => switchBitmaps(store, FIRST), [null], FIRST],
      [() => switchBitmaps(store, SECOND), [null, FIRST], SECOND],
      [() => dropBitmaps(store), [SECOND], null],
      [() => switchBitmaps(store, FIRST), [null], FIRST],
    ];
    for (const [step, meanwhile, after] of steps) {
      recorder.states.length = 0;
      await step();
      for (const state of recorder.states) {
        const header = parseHeader(state, 'image');
        expect(header.backingFile).toBe(before.backingFile);
        expect(header.extensions.filter(({ type }) => type !== 0x2385_2875).map(({ type, data }) => [type, data.byteLength]))
          .toEqual(before.extensions.map(({ type, data }) => [type, data.byteLength]));
        expect([...meanwhile, after]).toContainEqual(trustedExtension(header, 'image'));
      }
      const last = parseHeader(recorder.states.at(-1)!, 'image');
      expect(trustedExtension(last, 'image')).toEqual(trustedExtension(store.header, 'image'));
      expect(trustedExtension(last, 'image')).toEqual(after);
    }
  });

  test('is refused where the header has no room for it', async () => {
    const { store } = await storeOf({ clusterBits: 9, backing: 'a'.repeat(330) });
    expect(hasRoomForBitmaps(store)).toBe(false);
    await expect(switchBitmaps(store, FIRST)).rejects.toThrow('no room for bitmaps');
  });
});
