/** What is kept of a job that is to survive the end of its process: one versioned JSON document, validated when it is read. */
import { BlockError, messageOf } from '../../base/errors.js';
import type { FileIdentity } from './identity.js';
import type { Geometry } from './region-file.js';

const FORMAT = 'quiesce-job';
const VERSION = 1;
export const MAX_RECORD_BYTES = 1024 * 1024;

export interface JobEnd {
  readonly nodeName: string;
  /** Tells one way to make up the node from another. */
  readonly shape: string;
  /** What lies below it; null where a file is none that can be known again (a device, a server). */
  readonly files: readonly FileIdentity[] | null;
}

export interface JobRecord extends Geometry {
  readonly jobId: string;
  readonly type: 'mirror' | 'backup';
  /** `completed`: the target took the source's place, and what it holds counts; the source's content is of yesterday. */
  readonly state: 'running' | 'completed';
  readonly source: JobEnd;
  readonly target: JobEnd;
  /** In the source's image: what differed when it was stored. Regions that are not marked may differ there. */
  readonly bitmap?: string | undefined;
  /** What starts the same job again, in its own words. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

export function encodeRecord(record: JobRecord): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ format: FORMAT, version: VERSION, ...record }, null, 2)}\n`);
}

export function decodeRecord(name: string, bytes: Uint8Array): JobRecord {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw corrupt(name, messageOf(error));
  }
  if (!isObject(value) || value['format'] !== FORMAT) throw corrupt(name, `'format' is not '${FORMAT}'`);
  if (value['version'] !== VERSION) throw new BlockError('NOT_SUPPORTED', `the job record '${name}' has version ${String(value['version'])}, and ${VERSION} is known`);
  const { jobId, type, state, source, target, options, length, regionBytes, nonce, bitmap } = value;
  const must = (valid: boolean, what: string): void => { if (!valid) throw corrupt(name, `'${what}' is not valid`); };
  must(typeof jobId === 'string', 'jobId');
  must(type === 'mirror' || type === 'backup', 'type');
  must(state === 'running' || state === 'completed', 'state');
  must(isEnd(source), 'source');
  must(isEnd(target), 'target');
  must(isObject(options) && Object.values(options).every((option) => ['string', 'number', 'boolean'].includes(typeof option)), 'options');
  must(bitmap === undefined || typeof bitmap === 'string', 'bitmap');
  must(isCount(length), 'length');
  must(isCount(regionBytes) && regionBytes >= 512 && Number.isInteger(Math.log2(regionBytes)) && length as number / regionBytes <= 2 ** 24, 'regionBytes');
  must(isCount(nonce) && nonce < 2 ** 32, 'nonce');
  return { jobId, type, state, source, target, options, length, regionBytes, nonce, ...bitmap === undefined ? {} : { bitmap } } as unknown as JobRecord;
}

function isEnd(value: unknown): value is JobEnd {
  if (!isObject(value) || typeof value['nodeName'] !== 'string' || typeof value['shape'] !== 'string') return false;
  const { files } = value;
  return files === null || (Array.isArray(files) && files.length > 0 && files.every(isIdentity));
}

function isIdentity(value: unknown): value is FileIdentity {
  return isObject(value) && typeof value['filename'] === 'string' && typeof value['writable'] === 'boolean' &&
    typeof value['inode'] === 'string' && isCount(value['size']) &&
    typeof value['modifiedMs'] === 'number' && typeof value['changedMs'] === 'number';
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function corrupt(name: string, why: string): BlockError {
  return new BlockError('CORRUPT', `'${name}' is no job record: ${why}`);
}
