/** Snapshots as text, in the words of `qemu-img snapshot -l`. */
import { formatSize, type SnapshotInfo } from '../src/index.js';
import type { Column } from './output.mjs';

export const SNAPSHOT_COLUMNS: readonly Column<SnapshotInfo>[] = [
  { title: 'ID', value: ({ id }) => id },
  { title: 'TAG', value: ({ name }) => printable(name) },
  { title: 'VM SIZE', align: 'right', value: ({ vmStateSize }) => formatSize(vmStateSize) },
  { title: 'DATE', align: 'right', value: formatDate },
  { title: 'VM CLOCK', align: 'right', value: ({ vmClockNs }) => formatClock(vmClockNs) },
  { title: 'ICOUNT', align: 'right', value: ({ icount }) => icount?.toString() ?? '' },
];

/** Names come from images: no control character of theirs reaches a terminal. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, '?');
}

function formatDate({ dateSeconds }: SnapshotInfo): string {
  const date = new Date(dateSeconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function formatClock(ns: bigint): string {
  const ms = ns / 1_000_000n;
  const part = (value: bigint, width: number): string => value.toString().padStart(width, '0');
  return `${part(ms / 3_600_000n, 2)}:${part((ms / 60_000n) % 60n, 2)}:${part((ms / 1000n) % 60n, 2)}.${part(ms % 1000n, 3)}`;
}
