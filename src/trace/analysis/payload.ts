import type { RecordBatch } from '../record.js';

/** The number with its upper byte first that stands in a payload; NaN where that is too short. */
export function payloadSector({ pduOffset, pduLength, payloads }: RecordBatch, at: number, offset: number): number {
  if (pduLength[at]! < offset + 8) return NaN;
  let value = 0;
  for (let byte = 0; byte < 8; byte++) value = value * 256 + payloads[pduOffset[at]! + offset + byte]!;
  return value;
}

export function payloadDevice({ pduOffset, pduLength, payloads }: RecordBatch, at: number, offset: number): number {
  if (pduLength[at]! < offset + 4) return 0;
  let value = 0;
  for (let byte = 0; byte < 4; byte++) value = value * 256 + payloads[pduOffset[at]! + offset + byte]!;
  return value;
}
