/** An image of which only the pages that hold something take memory, so that what a case takes is the engine's. */
import { BlockNode } from '../../src/block/node.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';

const PAGE = 4096;

export class SparseImage {
  length: number;
  readonly #pages: Map<number, Uint8Array>;

  private constructor(length: number, pages: Map<number, Uint8Array>) {
    this.length = length;
    this.#pages = pages;
  }

  static async of(storage: MemoryDriver): Promise<SparseImage> {
    const pages = new Map<number, Uint8Array>();
    const node = new BlockNode({ name: 'memory', driver: new KeptOpen(storage) });
    const page = new Uint8Array(PAGE);
    for (let at = 0; at < storage.length(); at += PAGE) {
      await node.read(at, page);
      if (page.some((byte) => byte !== 0)) pages.set(at / PAGE, page.slice());
    }
    return new SparseImage(storage.length(), pages);
  }

  copy(): SparseImage {
    return new SparseImage(this.length, new Map(this.#pages));
  }

  byte(at: number): number {
    return this.#pages.get(Math.floor(at / PAGE))?.[at % PAGE] ?? 0;
  }

  /** A big-endian number of so many bytes. */
  number(at: number, bytes: number): bigint {
    let value = 0n;
    for (let i = 0; i < bytes; i++) value = value * 256n + BigInt(this.byte(at + i));
    return value;
  }

  setByte(at: number, value: number): void {
    if (at >= this.length) return;
    const number = Math.floor(at / PAGE);
    const page = new Uint8Array(PAGE);
    page.set(this.#pages.get(number) ?? []);
    page[at % PAGE] = value;
    this.#pages.set(number, page); // never the page of another copy
  }

  async toMemory(): Promise<MemoryDriver> {
    const memory = new MemoryDriver();
    const node = new BlockNode({ name: 'memory', driver: new KeptOpen(memory) });
    for (const [number, page] of this.#pages) {
      const bytes = Math.min(PAGE, this.length - number * PAGE);
      if (bytes > 0) await node.write(number * PAGE, page.subarray(0, Math.min(bytes, page.byteLength)));
    }
    await memory.resize(this.length);
    return memory;
  }
}
