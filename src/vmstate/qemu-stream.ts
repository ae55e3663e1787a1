/**
 * Tells a whole QEMU migration stream from a truncated one. End of file is not success: a killed QEMU closes its socket
 * just as a finished one does. A whole stream ends with its end mark, then the description of its device sections, then
 * nothing:
 *
 *     … 00 | 06 | be32 length | JSON of that length | end of file
 *
 * The sections before that can only be walked by a reader that knows every device, so the record is looked for from the
 * end, in what was stored: the stream itself is neither copied nor scanned while it flows by.
 */
import { formatSize, KiB, MiB, viewOf } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';

const MAGIC = 0x5145_564d; // QEVM
const END_MARK = 0x00;
const DESCRIPTION = 0x06;
const OPENING_BRACE = 0x7b;
/** End mark, section type, length. */
const RECORD_HEADER = 6;
const MAX_DESCRIPTION = 16 * MiB - 1;
const FIRST_WINDOW = 256 * KiB;

/** `opaque`: not QEMU's, so any end is fine. `empty`: no byte at all. */
export type StreamKind = 'qemu' | 'opaque' | 'empty';

/** Where the state was stored: a VmStateArea after `finish`, a VmStateSource, a spool. */
export interface StoredState {
  load(position: number, into: Uint8Array): Promise<number>;
}

/** Throws PROTOCOL where the stored state begins as a QEMU migration stream and does not end as one. */
export async function checkStreamEnd(stored: StoredState, bytes: number): Promise<StreamKind> {
  if (bytes === 0) return 'empty';
  const head = await loadExactly(stored, 0, Math.min(bytes, 4));
  if (!beginsAsQemuStream(head)) return 'opaque';
  const limit = Math.min(bytes, MAX_DESCRIPTION + RECORD_HEADER);
  for (let window = FIRST_WINDOW; ; window *= 8) {
    const span = Math.min(window, limit);
    const tail = await loadExactly(stored, bytes - span, span);
    if (endsWithDescription(tail)) return 'qemu';
    if (span === limit) throw truncated(bytes);
  }
}

function beginsAsQemuStream(head: Uint8Array): boolean {
  return head.byteLength >= 4 && viewOf(head).getUint32(0) === MAGIC;
}

/**
 * True where a description record reaches exactly to the end of `tail`. JSON holds no NUL byte and the length's high
 * byte is one, so the last NUL of the stream is a byte of the length: only four places are possible.
 */
function endsWithDescription(tail: Uint8Array): boolean {
  const lastNul = tail.lastIndexOf(0);
  for (let json = lastNul + 1; json <= lastNul + 4; json++) if (isDescription(tail, json)) return true;
  return false;
}

function isDescription(tail: Uint8Array, json: number): boolean {
  const mark = json - RECORD_HEADER;
  if (mark < 0 || tail[mark] !== END_MARK || tail[mark + 1] !== DESCRIPTION || tail[json] !== OPENING_BRACE) return false;
  if (viewOf(tail).getUint32(mark + 2) !== tail.byteLength - json) return false;
  try {
    JSON.parse(new TextDecoder().decode(tail.subarray(json)));
    return true;
  } catch {
    return false;
  }
}

function truncated(bytes: number): BlockError {
  return new BlockError('PROTOCOL', `the QEMU migration stream ended after ${bytes} bytes (${formatSize(bytes)}) without its end mark ` +
    'and device description (00 06, length, JSON): it was cut off, or its machine has suppress-vmdesc=on, which looks the same');
}

async function loadExactly(stored: StoredState, position: number, bytes: number): Promise<Uint8Array> {
  const into = new Uint8Array(bytes);
  for (let done = 0; done < bytes;) {
    const count = await stored.load(position + done, into.subarray(done));
    if (count === 0) throw new BlockError('CORRUPT', `the VM state ends at ${position + done}, expected ${position + bytes} bytes or more`);
    done += count;
  }
  return into;
}
