/** Seeded nonsense for the server: handshakes and requests that were right once, damaged, and cut anywhere on the wire. */
import type { Random } from '../../src/base/clock.js';
import { infoPayload, metaPayload, option, RawNbd, request, u32, u64 } from '../support/nbd-raw.js';

const BOUNDARIES = [0, 1, 0xff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x200_0000, 0x200_0001];
const CONTEXTS = ['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b', 'base:', 'qemu:', '', 'x:y'];
const DISK = 1024 * 1024;

export interface FuzzCase {
  readonly bytes: Buffer;
  /** The handshake is whole, and structured replies are on: what comes back can be told apart. */
  readonly framed: boolean;
}

export function makeCase(random: Random): FuzzCase {
  const framed = random.chance(0.6);
  const handshake = framed
    ? Buffer.concat([u32(3), option(8), option(10, metaPayload('', 'base:allocation', 'qemu:allocation-depth')), option(7, infoPayload('', 3))])
    : damage(Buffer.concat([u32(random.pick([0, 1, 2, 3, 3, 3, 4])), ...times(random, 6, () => anyOption(random))]), random);
  const requests = Buffer.concat(times(random, 12, () => anyRequest(random)));
  return { bytes: Buffer.concat([handshake, random.chance(0.7) ? damage(requests, random) : requests]), framed };
}

function times<T>(random: Random, most: number, make: () => T): T[] {
  return Array.from({ length: random.below(most + 1) }, make);
}

function anyOption(random: Random): Buffer {
  const number = random.pick([1, 2, 3, 4, 5, 6, 7, 7, 7, 8, 8, 9, 10, 10, 11, random.next32()]);
  const name = random.pick(['', '', '', 'none', 'x'.repeat(random.below(5000))]);
  switch (number) {
    case 6:
    case 7:
      return option(number, infoPayload(name, ...times(random, 4, () => random.below(6))));
    case 9:
    case 10:
      return option(number, metaPayload(name, ...times(random, 3, () => random.pick(CONTEXTS))));
    default:
      return option(number, random.chance(0.3) ? randomBytes(random, 100) : Buffer.alloc(0));
  }
}

function anyRequest(random: Random): Buffer {
  const type = random.pick([0, 0, 1, 1, 3, 4, 5, 6, 7, 7, 2, 8, random.below(65_536)]);
  const bytes = random.chance(0.1) ? random.pick(BOUNDARIES) : random.below(70_000);
  const offset = random.chance(0.1) ? u64(random.pick(BOUNDARIES)).readBigUInt64BE(0) << BigInt(random.below(33)) : random.below(DISK);
  const payload = type === 1 ? randomBytes(random, Math.min(bytes, 70_000)) : Buffer.alloc(0);
  return request({ type: type === 2 && random.chance(0.9) ? 3 : type, flags: random.chance(0.8) ? random.pick([0, 0, 1, 2, 4, 8, 16]) : random.below(65_536), handle: random.next32(), offset, bytes, payload });
}

function randomBytes(random: Random, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  random.fill(buffer);
  return buffer;
}

function damage(bytes: Buffer, random: Random): Buffer {
  let damaged = bytes;
  for (let count = random.pick([0, 1, 1, 2, 5]); count > 0 && damaged.byteLength > 4; count--) {
    const at = random.below(damaged.byteLength - 4);
    switch (random.below(5)) {
      case 0:
        damaged[at] = random.next32() & 0xff;
        break;
      case 1:
        damaged.writeUInt32BE(random.pick(BOUNDARIES), at);
        break;
      case 2:
        damaged = damaged.subarray(0, at);
        break;
      case 3:
        damaged = Buffer.concat([damaged.subarray(0, at), randomBytes(random, random.below(40)), damaged.subarray(at)]);
        break;
      default:
        damaged = Buffer.concat([damaged.subarray(0, at), damaged.subarray(Math.min(damaged.byteLength, at + random.below(60)))]);
    }
  }
  return Buffer.from(damaged);
}

/** Sends a case, cut at random; returns all that came back once the server has ended the connection, null where the client hung up first. */
export async function send(path: string, { bytes }: FuzzCase, random: Random): Promise<Buffer | null> {
  const client = await RawNbd.connect(path);
  for (let at = 0; at < bytes.byteLength;) {
    const step = random.chance(0.5) ? bytes.byteLength : 1 + random.below(200);
    client.send(bytes.subarray(at, at + step));
    at += step;
    if (random.chance(0.2)) await new Promise((resolve) => setImmediate(resolve));
  }
  if (random.chance(0.15)) {
    client.destroy();
    return null;
  }
  client.end();
  return client.rest();
}

/** Throws where the answers to a framed case are not replies to the last byte. */
export function checkFraming(answer: Buffer): void {
  let at = 18;
  const need = (bytes: number): void => {
    if (at + bytes > answer.byteLength) throw new Error(`the answers end within one, at ${at} of ${answer.byteLength}`);
  };
  for (let acknowledged = 0; acknowledged < 3;) {
    need(20);
    if (answer.readBigUInt64BE(at) !== 0x0003_e889_0455_65a9n) throw new Error(`no option reply at ${at}`);
    if (answer.readUInt32BE(at + 12) === 1) acknowledged++;
    at += 20 + answer.readUInt32BE(at + 16);
  }
  while (at < answer.byteLength) {
    need(16);
    const magic = answer.readUInt32BE(at);
    if (magic === 0x6744_6698) {
      at += 16;
      continue;
    }
    if (magic !== 0x668e_33ef) throw new Error(`no reply at ${at} of ${answer.byteLength}`);
    need(20);
    at += 20 + answer.readUInt32BE(at + 16);
    need(0);
  }
}
