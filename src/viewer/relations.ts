import type { IoTable } from '../trace/traced-io.js';

/** Requests that belong together across layers, and how. */
export interface Related {
  readonly row: number;
  /** Layers below the request at the top: 0 for that itself. */
  readonly level: number;
  /** What ties it to the one that stands before it at the level above, or to the one it was merged into. */
  readonly how: 'itself' | 'parent' | 'child' | 'merged';
}

export interface Family {
  /** From the top down, each child after its parent. */
  readonly members: readonly Related[];
  /** There are more than were asked for. */
  readonly cut: boolean;
}

/** Which requests name a row as their parent, or as what they were merged into. */
class Reverse {
  readonly #starts: Uint32Array;
  readonly #rows: Uint32Array;

  constructor(column: Int32Array, count: number) {
    this.#starts = new Uint32Array(count + 1);
    for (let row = 0; row < count; row++) if (valid(column[row]!, count)) this.#starts[column[row]! + 1]!++;
    for (let row = 0; row < count; row++) this.#starts[row + 1] = this.#starts[row + 1]! + this.#starts[row]!;
    const next = this.#starts.slice();
    this.#rows = new Uint32Array(this.#starts[count]!);
    for (let row = 0; row < count; row++) if (valid(column[row]!, count)) this.#rows[next[column[row]!]!++] = row;
  }

  of(row: number): Uint32Array {
    return this.#rows.subarray(this.#starts[row], this.#starts[row + 1]);
  }
}

const valid = (row: number, count: number): boolean => row >= 0 && row < count;

/** Parents, children and merges of requests; the way back is made when it is first asked for. */
export class Relations {
  readonly #table: IoTable;
  #children: Reverse | undefined;
  #merges: Reverse | undefined;

  constructor(table: IoTable) {
    this.#table = table;
  }

  childrenOf(row: number): Uint32Array {
    this.#children ??= new Reverse(this.#table.parent, this.#table.count);
    return this.#children.of(row);
  }

  mergedInto(row: number): Uint32Array {
    this.#merges ??= new Reverse(this.#table.mergedInto, this.#table.count);
    return this.#merges.of(row);
  }

  /** The row's parents up to the guest's request, and all that was made for the row itself, `limit` requests at most. */
  family(row: number, limit: number): Family {
    const parents = this.#parentsOf(row, limit);
    const members: Related[] = parents.map((parent, level) => ({ row: parent, level, how: 'parent' }));
    const waiting: Related[] = [{ row, level: parents.length, how: 'itself' }];
    const seen = new Set(parents);
    while (waiting.length > 0 && members.length < limit) {
      const next = waiting.pop()!;
      if (seen.has(next.row)) continue;
      seen.add(next.row);
      members.push(next);
      const below = [...this.childrenOf(next.row)].map((child): Related => ({ row: child, level: next.level + 1, how: 'child' }));
      const merged = [...this.mergedInto(next.row)].map((part): Related => ({ row: part, level: next.level, how: 'merged' }));
      waiting.push(...[...merged, ...below].slice(0, limit + 1).reverse());
    }
    return { members, cut: waiting.some((related) => !seen.has(related.row)) };
  }

  /** From the top down. What was merged has the parents of what it became a part of only where it has none itself. */
  #parentsOf(row: number, limit: number): number[] {
    const { parent, count } = this.#table;
    const found = new Set<number>();
    for (let next = parent[row]!; valid(next, count) && next !== row && !found.has(next) && found.size < limit; next = parent[next]!) found.add(next);
    return [...found].reverse();
  }
}
