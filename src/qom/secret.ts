/** Secrets: text or bytes that a client or a file gives, in the clear or encrypted with AES-256-CBC by another secret. */
import { createDecipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { decodeBase64 } from '../base/base64.js';
import { BlockError, errnoOf, errnoText } from '../base/errors.js';

const KEY_BYTES = 32;
const BLOCK_BYTES = 16;

interface SecretOptions {
  readonly data: string;
  readonly file: string;
  readonly format: string;
  /** Of the secret that is the key; empty: in the clear. */
  readonly keyid: string;
  readonly iv: string;
}

/** The bytes of the secret. `find`: the bytes of another one. */
export function loadSecret({ data, file, format, keyid, iv }: SecretOptions, find: (id: string) => Uint8Array | undefined): Uint8Array {
  const input = readInput(data, file);
  const decode = (): Uint8Array => (format === 'base64' ? decodeBase64(input.toString('latin1')) : input);
  return keyid === '' ? decode() : decrypt(keyid, iv, decode, find);
}

function readInput(data: string, file: string): Buffer {
  if (file === '') {
    if (data === '') throw invalid("Either 'file' or 'data' must be provided");
    return Buffer.from(data);
  }
  if (data !== '') throw invalid("'file' and 'data' are mutually exclusive");
  try {
    return readFileSync(file);
  } catch (error) {
    const errno = errnoOf(error);
    const what = errno === 'EISDIR' ? 'Error reading file' : 'Failed to open file';
    throw new BlockError('IO', `Unable to read ${file}: ${what} “${file}”: ${errnoText(errno)}`, { cause: error });
  }
}

function decrypt(keyid: string, iv: string, input: () => Uint8Array, find: (id: string) => Uint8Array | undefined): Uint8Array {
  const key = find(keyid);
  if (key === undefined) throw invalid(`No secret with id '${keyid}'`);
  if (key.byteLength !== KEY_BYTES) throw invalid(`Key should be ${KEY_BYTES} bytes in length`);
  if (iv === '') throw invalid('IV is required to decrypt secret');
  const start = decodeBase64(iv);
  if (start.byteLength !== BLOCK_BYTES) throw invalid(`IV should be ${BLOCK_BYTES} bytes in length not ${start.byteLength}`);
  const encrypted = input();
  if (encrypted.byteLength % BLOCK_BYTES !== 0) throw invalid(`Length ${encrypted.byteLength} must be a multiple of block size ${BLOCK_BYTES}`);
  const decipher = createDecipheriv('aes-256-cbc', key, start).setAutoPadding(false);
  const plain = Buffer.concat([decipher.update(encrypted), decipher.final()]);
  const padding = plain.at(-1) ?? 0;
  if (padding > BLOCK_BYTES || padding > plain.byteLength) throw invalid(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
  return plain.subarray(0, plain.byteLength - padding);
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
