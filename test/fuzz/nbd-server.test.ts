/** Whatever clients send, the server answers in whole replies, ends the connection, and keeps nothing. FUZZ_SEEDS=N for more. */
import { expect, test } from '@jest/globals';
import { BufferPool } from '../../src/base/buffer-pool.js';
import { Random } from '../../src/base/clock.js';
import { RawNbd, request } from '../support/nbd-raw.js';
import { until, useServed } from '../support/nbd-served.js';
import { useTmp } from '../support/tmp.js';
import { checkFraming, makeCase, send } from './nbd-server.js';

const tmp = useTmp();
const serve = useServed();
const SEEDS = Number(process.env['FUZZ_SEEDS'] ?? 300);
const MiB = 1024 * 1024;

test('damaged handshakes and requests', async () => {
  const pool = new BufferPool(32 * MiB);
  const { server } = await serve(tmp('s'), { pool, maxInFlight: 3 }, MiB, {
    allocationDepth: true, bitmaps: [{ name: 'b', nextDirty: (_, end) => end, nextClean: (offset) => offset }],
  });
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Random(seed);
    const one = makeCase(random);
    const answer = await send(tmp('s'), one, random);
    try {
      if (one.framed && answer !== null) checkFraming(answer);
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
    await until(() => server.connections === 0);
    if (pool.bytesFree !== 32 * MiB) throw new Error(`seed ${seed}: ${32 * MiB - pool.bytesFree} bytes are still held`);
  }
  const client = await RawNbd.transmitting(tmp('s'));
  client.send(request({ type: 0, bytes: 512 }));
  expect((await client.reply()).type).toBe(1);
  client.destroy();
}, 600_000);
