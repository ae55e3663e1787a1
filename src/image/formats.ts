/** The static table of formats: how each is recognised. Raw is last and never probed: any bytes could be raw. */
import { isQcow2 } from '../format/qcow2/header.js';

export type FormatName = 'qcow2' | 'raw';

interface FormatDefinition {
  readonly name: FormatName;
  /** True where the first bytes of a file are unmistakably of this format. */
  readonly probe: ((start: Uint8Array) => boolean) | null;
}

export const FORMATS: readonly FormatDefinition[] = [
  { name: 'qcow2', probe: isQcow2 },
  { name: 'raw', probe: null },
];

/** What a new file of this name is made as: qcow2 where it ends so, else raw. */
export function formatByName(name: string): FormatName {
  return name.endsWith('.qcow2') ? 'qcow2' : 'raw';
}

export const PROBE_BYTES = 512;

export function probeFormat(start: Uint8Array): FormatName {
  return FORMATS.find(({ probe }) => probe?.(start) === true)?.name ?? 'raw';
}
