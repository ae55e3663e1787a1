/** Metadata contexts: which there are, which a client chose, and how queries find them (doc/proto.md, "Metadata querying"). */
import type { ServedExport } from './export.js';

const BASE_ALLOCATION = 'base:allocation';
const ALLOCATION_DEPTH = 'qemu:allocation-depth';
const DIRTY_BITMAP = 'qemu:dirty-bitmap:';

/** Index `n` of the export's bitmaps has the id DIRTY_BITMAP + n. */
export const ContextId = { BASE_ALLOCATION: 0, ALLOCATION_DEPTH: 1, DIRTY_BITMAP: 2 } as const;

export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

/** All contexts of an export, in the order of QEMU's replies. */
export function contextsOf({ source }: ServedExport): MetaContext[] {
  return [
    { id: ContextId.BASE_ALLOCATION, name: BASE_ALLOCATION },
    ...(source.allocationDepth ? [{ id: ContextId.ALLOCATION_DEPTH, name: ALLOCATION_DEPTH }] : []),
    ...source.bitmaps.map(({ name }, index) => ({ id: ContextId.DIRTY_BITMAP + index, name: `${DIRTY_BITMAP}${name}` })),
  ];
}

/** The contexts that the queries name. A list also takes `base:`, `qemu:` and `qemu:dirty-bitmap:` for all under them. */
export function selectContexts(all: readonly MetaContext[], queries: readonly string[], listing: boolean): MetaContext[] {
  if (listing && queries.length === 0) return [...all];
  const exact = new Set(queries);
  const open = listing ? ['base:', 'qemu:', DIRTY_BITMAP].filter((prefix) => exact.has(prefix)) : [];
  // two bitmaps may have one name, each of a node of its own: a name means the first
  const isFirst = (name: string, index: number): boolean => all.findIndex((other) => other.name === name) === index;
  return all.filter(({ name }, index) => (exact.has(name) && isFirst(name, index)) || open.some((prefix) => name.startsWith(prefix)));
}
