/**
 * JSON with columns: what the page and its server send each other. A value is 4 bytes with the length of the JSON (little-endian), the JSON,
 * blanks up to a multiple of 8, and the columns one after the other, each from a multiple of 8 on, in the byte order of all machines there are.
 * In the JSON `{"$":[type, offset, length]}` stands for a column and `{"$":"NaN"}` for what JSON cannot say.
 */

const TYPES = { Uint8Array, Uint16Array, Uint32Array, Int32Array, Float64Array } as const;
type TypeName = keyof typeof TYPES;
type Column = InstanceType<(typeof TYPES)[TypeName]>;
const ALIGNMENT = 8;

const aligned = (place: number): number => Math.ceil(place / ALIGNMENT) * ALIGNMENT;

function typeOf(value: unknown): TypeName | undefined {
  if (!ArrayBuffer.isView(value)) return undefined;
  return (Object.keys(TYPES) as TypeName[]).find((name) => value instanceof TYPES[name]);
}

export function encode(value: unknown): Uint8Array<ArrayBuffer> {
  const columns: { column: Column; offset: number }[] = [];
  let end = 0;
  const text = JSON.stringify(value, (_, field: unknown): unknown => {
    if (typeof field === 'number' && !Number.isFinite(field)) return { $: 'NaN' };
    const type = typeOf(field);
    if (type === undefined) return field;
    const column = field as Column;
    columns.push({ column, offset: end });
    const told = { $: [type, end, column.length] };
    end = aligned(end + column.byteLength);
    return told;
  });
  const json = new TextEncoder().encode(text);
  const base = aligned(4 + json.length);
  const all = new Uint8Array(base + end).fill(32, 0, base);
  new DataView(all.buffer).setUint32(0, json.length, true);
  all.set(json, 4);
  for (const { column, offset } of columns) all.set(new Uint8Array(column.buffer, column.byteOffset, column.byteLength), base + offset);
  return all;
}

/** Columns look into `bytes`, which must begin at a multiple of 8. */
export function decode(bytes: ArrayBuffer): unknown {
  const length = new DataView(bytes).getUint32(0, true);
  const base = aligned(4 + length);
  return JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)), (_, field: unknown): unknown => {
    if (typeof field !== 'object' || field === null || !Object.hasOwn(field, '$')) return field;
    const told = (field as { $: 'NaN' | [TypeName, number, number] }).$;
    return told === 'NaN' ? Number.NaN : new TYPES[told[0]](bytes, base + told[1], told[2]);
  });
}
