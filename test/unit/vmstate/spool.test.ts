import { readdirSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { MiB } from '../../../src/base/bytes.js';
import { VmStateReader } from '../../../src/vmstate/reader.js';
import { Spool } from '../../../src/vmstate/spool.js';
import { VmStateWriter } from '../../../src/vmstate/writer.js';
import { randomBytes } from '../../support/random-bytes.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();

describe('Spool', () => {
  test.each([{ direct: false }, { direct: true }])('state goes in and comes out: $direct', async (options) => {
    const data = randomBytes(5 * MiB + 4097);
    await using spool = await Spool.beside(tmp('disk.qcow2'), options);
    expect(readdirSync(tmp())).toEqual([]);
    const writer = new VmStateWriter(spool);
    await writer.write(data);
    const total = await writer.finish();
    expect(total).toBe(data.byteLength);
    const parts: Uint8Array[] = [];
    for await (const chunk of new VmStateReader(spool.source(total))) parts.push(chunk.slice());
    expect(Buffer.compare(Buffer.concat(parts), data)).toBe(0);
    const odd = new Uint8Array(3);
    expect(await spool.load(4095, odd)).toBe(1);
    expect(odd[0]).toBe(data[4095]);
    expect(await spool.source(total).load(total, odd)).toBe(0);
    await spool.discard();
    expect(await spool.load(0, odd)).toBe(0);
  });

  test('a directory that is missing is named', async () => {
    await expect(Spool.beside(tmp('no/disk.qcow2'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
