/** Tells, once, when a write to a node reaches past a mark that was set. */
import type { WriteObserver } from '../block/dirty-bitmaps.js';
import type { BlockNode } from '../block/node.js';

type OnExceeded = (nodeName: string, amountExceeded: number, threshold: number) => void;

export class WriteThresholds {
  readonly #marks = new WeakMap<BlockNode, Mark>();
  readonly #onExceeded: OnExceeded;

  constructor(onExceeded: OnExceeded) {
    this.#onExceeded = onExceeded;
  }

  /** 0 where none is set. */
  of(node: BlockNode): number {
    return this.#marks.get(node)?.threshold ?? 0;
  }

  /** 0 takes the mark away. */
  set(node: BlockNode, threshold: number): void {
    this.#clear(node);
    if (threshold === 0) return;
    const mark: Mark = {
      threshold,
      writes: (offset, bytes) => {
        if (offset + bytes <= threshold) return;
        this.#clear(node);
        this.#onExceeded(node.nodeName, offset + bytes - threshold, threshold);
      },
    };
    this.#marks.set(node, mark);
    node.writeObservers.add(mark);
  }

  #clear(node: BlockNode): void {
    const mark = this.#marks.get(node);
    if (mark !== undefined) node.writeObservers.delete(mark);
    this.#marks.delete(node);
  }
}

interface Mark extends WriteObserver {
  readonly threshold: number;
}
