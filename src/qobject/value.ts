/**
 * JSON values as QEMU holds them. An integer is a `number` where that is exact, else a `bigint` (QEMU has 64 bits, signed or
 * unsigned); a `number` with a fraction, or beyond 2^53, is a double. A double that happens to be a whole number, such as `1.0`,
 * is a `JsonDouble`: where an integer is wanted, QEMU refuses it.
 */
export type Json = null | boolean | number | bigint | string | JsonDouble | readonly Json[] | JsonDict;

/** Made without a prototype by the parser, so that a key `__proto__` is a key like any other. An undefined member is an absent one. */
export interface JsonDict { readonly [key: string]: Json | undefined }

export class JsonDouble {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;

export function isDict(value: Json | undefined): value is JsonDict {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonDouble);
}

export function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

/** An empty dictionary to put keys in. */
export function newDict(): Record<string, Json> {
  return Object.create(null) as Record<string, Json>;
}

/** Undefined where the key is absent; never what a prototype has. */
export function getKey(dict: JsonDict, key: string): Json | undefined {
  return Object.hasOwn(dict, key) ? dict[key] : undefined;
}

/** A number that C would hold as an integer of 64 bits, signed or unsigned. */
export function isInteger(value: Json | undefined): value is number | bigint {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value));
}

/** `number` where that is exact. */
export function integerOf(value: bigint): number | bigint {
  const small = Number(value);
  return Number.isSafeInteger(small) ? small : value;
}

/** Of the text of a JSON integer: an integer of 64 bits, or else the nearest double. */
export function parseInteger(text: string): Json {
  if (text.length <= 15) return Number(text) + 0;
  const value = BigInt(text);
  return value >= INT64_MIN && value <= UINT64_MAX ? integerOf(value) : Number(text);
}

/** Of the text of a JSON number with a fraction or an exponent. */
export function parseDouble(text: string): Json {
  const value = Number(text);
  return Number.isSafeInteger(value) ? new JsonDouble(value) : value;
}
