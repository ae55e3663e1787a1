import { describe, expect, test } from '@jest/globals';
import { buildIoTable } from '../../../../src/trace/analysis/analyse.js';
import type { BuiltIoTable } from '../../../../src/trace/analysis/io-table.js';
import { OpenIos } from '../../../../src/trace/analysis/open-ios.js';
import { MAX_AGE_NS, MAX_OPEN, Pairing } from '../../../../src/trace/analysis/pairing.js';
import { deviceOf } from '../../../../src/trace/record.js';
import { batchOf, message, readerOf, script, type ScriptRecord } from '../../../support/trace-script.js';

/** Rows as `Q G I D C`, a dot for what was not seen, with the row they were merged into and an error. */
function rows(table: BuiltIoTable): string[] {
  return Array.from({ length: table.count }, (_, row) => {
    const time = (column: Float64Array): string => (Number.isNaN(column[row]!) ? '.' : String(column[row]!));
    const times = [table.queued, table.gotRequest, table.inserted, table.issued, table.completed].map(time).join(' ');
    const into = table.mergedInto[row] === -1 ? '' : ` into ${table.mergedInto[row]}`;
    const parent = table.parent[row] === -1 ? '' : ` of ${table.parent[row]}`;
    return `${table.sector[row]}+${table.bytes[row]! / 512}: ${times}${into}${parent}${table.error[row] === 0 ? '' : ` error ${table.error[row]}`}`;
  });
}

async function paired(lines: string): Promise<BuiltIoTable> {
  return buildIoTable(readerOf(lines));
}

async function pairedRows(lines: string): Promise<string[]> {
  return rows(await paired(lines));
}

describe('records pair into requests', () => {
  test('a whole life', async () => {
    expect(await pairedRows(`
      1 Q R 8+8
      2 G R 8+8
      3 I R 8+8
      4 D R 8+8
      5 C R 8+8`)).toEqual(['8+8: 1 2 3 4 5']);
  });

  test('those with the same sector in the order of being queued', async () => {
    expect(await pairedRows(`
      1 Q R 8+8
      2 Q R 8+8
      3 D R 8+8
      4 D R 8+8
      5 C R 8+8
      9 C R 8+8`)).toEqual(['8+8: 1 . . 3 5', '8+8: 2 . . 4 9']);
  });

  test('a read and a write of the same sectors are not mixed up', async () => {
    expect(await pairedRows(`
      1 Q R 8+8
      2 Q W 8+8
      3 D W 8+8
      4 D R 8+8
      5 C W 8+8
      6 C R 8+8`)).toEqual(['8+8: 1 . . 4 6', '8+8: 2 . . 3 5']);
  });

  test('a longer one at the same sector is another one', async () => {
    expect(await pairedRows(`
      1 Q W 8+8
      2 Q W 8+16
      3 D W 8+16
      4 D W 8+8
      5 C W 8+16
      6 C W 8+8`)).toEqual(['8+8: 1 . . 4 6', '8+16: 2 . . 3 5']);
  });

  test('devices are apart', async () => {
    expect(await pairedRows(`
      1 Q R 8+8 dev=1
      2 Q R 8+8 dev=2
      3 C R 8+8 dev=2
      4 C R 8+8 dev=1`)).toEqual(['8+8: 1 . . . 4', '8+8: 2 . . . 3']);
  });

  test('one that is refused at once, though another like it is in the device', async () => {
    const table = await paired(`
      1 Q RS 0+8 pid=7
      2 D RS 0+8
      3 Q RS 0+8 pid=7
      4 C RS 0+8 pid=7 err=65514
      5 C RS 0+8 pid=0`);
    expect(rows(table)).toEqual(['0+8: 1 . . 2 5', '0+8: 3 . . . 4 error 22']);
    expect(table.counts).toMatchObject({ refused: 1, failed: 0 });
  });

  test('an error of the device', async () => {
    const table = await paired(`
      1 Q R 0+8
      2 D R 0+8
      3 C R 0+8 err=5`);
    expect(rows(table)).toEqual(['0+8: 1 . . 2 3 error 5']);
    expect(table.counts).toMatchObject({ refused: 0, failed: 1 });
  });

  test('a requeue undoes the issue', async () => {
    const table = await paired(`
      1 Q R 0+8
      2 D R 0+8
      3 R R 0+8
      7 D R 0+8
      9 C R 0+8`);
    expect(rows(table)).toEqual(['0+8: 1 . . 7 9']);
    expect(table.counts.requeued).toBe(1);
  });

  test('a discard', async () => {
    expect(await pairedRows(`
      1 Q DS 0+2048
      2 D DS 0+2048
      3 C DS 0+2048`)).toEqual(['0+2048: 1 . . 2 3']);
  });
});

describe('merges', () => {
  test('at the back and at the front: one request to the device carries all', async () => {
    const table = await paired(`
      1 Q W 100+8
      2 G W 100+8
      3 Q W 108+8
      4 M W 108+8
      5 Q W 92+8
      6 F W 92+8
      7 I W 92+24
      8 D W 92+24
      9 C W 92+24`);
    expect(rows(table)).toEqual(['100+8: 1 2 7 8 9', '108+8: 3 . 7 8 9 into 0', '92+8: 5 . 7 8 9 into 0']);
    expect(table.counts.merges).toBe(2);
  });

  test('of two requests that had merged others before', async () => {
    expect(await pairedRows(`
      1 Q W 0+8
      2 G W 0+8
      3 Q W 16+8
      4 G W 16+8
      5 Q W 24+8
      6 M W 24+8
      7 Q W 8+8
      8 M W 8+8     # fills the gap behind the first
      9 M W 16+16   # and the second request joins the first
      10 D W 0+32
      11 C W 0+32`)).toEqual(['0+8: 1 2 . 10 11', '16+8: 3 4 . 10 11 into 0', '24+8: 5 . . 10 11 into 1', '8+8: 7 . . 10 11 into 0']);
  });

  test('that were not recorded: what is inside the range that goes to the device', async () => {
    expect(await pairedRows(`
      1 Q W 0+8
      2 Q W 8+8
      3 Q R 8+8     # a read stays its own
      4 Q W 64+8
      5 D W 0+16
      6 C W 0+16
      7 D W 64+8
      8 C W 64+8`)).toEqual(['0+8: 1 . . 5 6', '8+8: 2 . . 5 6 into 0', '8+8: 3 . . . .', '64+8: 4 . . 7 8']);
  });

  test('without issues too', async () => {
    expect(await pairedRows(`
      1 Q W 0+8
      2 Q W 8+8
      6 C W 0+16`)).toEqual(['0+8: 1 . . . 6', '8+8: 2 . . . 6 into 0']);
  });
});

describe('splits', () => {
  test('one request ends with its last piece', async () => {
    const table = await paired(`
      1 Q W 0+24
      2 X W 0+8 /8
      3 G W 0+8
      4 D W 0+8
      5 X W 8+8 /16
      6 G W 8+8
      7 D W 8+8
      8 G W 16+8
      9 D W 16+8
      20 C W 16+8
      21 C W 0+8
      22 C W 8+8`);
    expect(rows(table)).toEqual(['0+24: 1 3 . 4 22']);
    expect(table.counts).toMatchObject({ splits: 2, withoutQueue: 0, withoutEnd: 0 });
  });

  test('a piece merges with the next request', async () => {
    const table = await paired(`
      1 Q W 0+12
      2 X W 0+12 /8
      3 G W 0+8
      4 G W 8+4
      5 Q W 12+4
      6 M W 12+4
      7 D W 0+8
      8 D W 8+8
      9 C W 8+8
      10 C W 0+8`);
    expect(rows(table)).toEqual(['0+12: 1 3 . 7 10', '12+4: 5 . . 8 9 into 0']);
    expect(table.counts.withoutEnd).toBe(0);
  });

  test('the first piece merges into another request: the rest ends later', async () => {
    const table = await paired(`
      1 Q W 0+8
      2 G W 0+8
      3 Q W 8+16
      4 X W 8+16 /16
      5 M W 8+8
      6 G W 16+8
      7 D W 0+16
      8 D W 16+8
      9 C W 0+16
      12 C W 16+8`);
    expect(rows(table)).toEqual(['0+8: 1 2 . 7 9', '8+16: 3 6 . 7 12 into 0']);
    expect(table.counts.withoutEnd).toBe(0);
  });

  test('that were not recorded, and completions in parts', async () => {
    expect(await pairedRows(`
      1 Q W 0+24
      4 D W 0+8
      7 D W 8+8
      9 D W 16+8
      20 C W 16+8
      21 C W 0+8
      22 C W 8+8
      30 Q R 0+16
      31 D R 0+16
      32 C R 0+8
      33 C R 8+8`)).toEqual(['0+24: 1 . . 4 22', '0+16: 30 . . 31 33']);
  });
});

describe('flushes', () => {
  test('as the kernel tells them: one for the device, an end for each that waited', async () => {
    const table = await paired(`
      1 Q FWS
      2 G FWS
      3 Q FWS
      4 D FN
      5 C FN
      6 C WS
      7 C WS`);
    expect(rows(table)).toEqual(['0+0: 1 2 . 4 6', '0+0: 3 . . 4 7']);
    expect(table.counts).toMatchObject({ withoutQueue: 0, withoutEnd: 0, passedOver: 0 });
  });

  test('the second end may be missing', async () => {
    expect(await pairedRows(`
      1 Q FWS
      2 D FN
      3 C FN
      5 Q FWS
      6 D FN
      8 C FN`)).toEqual(['0+0: 1 . . 2 3', '0+0: 5 . . 6 8']);
  });

  test('as one request, each with its own end', async () => {
    expect(await pairedRows(`
      1 Q FWS
      2 Q FWS
      3 D FWS
      4 C FWS
      5 D FWS
      6 C FWS`)).toEqual(['0+0: 1 . . 3 4', '0+0: 2 . . 5 6']);
  });

  test('of our own recordings: the tables that they have written are theirs', async () => {
    const [disk, metadata] = [deviceOf(4000, 0), deviceOf(4000, 2)];
    const { parent } = await paired(`
      1 Q FWS 0+0 dev=${disk}
      2 D FN 0+0 dev=${disk}
      3 A WSM 512+8 dev=${metadata} <0@${disk}
      4 Q WSM 512+8 dev=${metadata}
      5 D WSM 512+8 dev=${metadata}
      6 C WSM 512+8 dev=${metadata}
      9 C FN 0+0 dev=${disk}`);
    expect([...parent]).toEqual([-1, 0]);
  });

  test('of our own recordings: several at once, each with an end of its own', async () => {
    const device = deviceOf(4000, 3);
    const table = await paired(`
      1 Q FWS 0+0 dev=${device}
      2 D FN 0+0 dev=${device}
      3 Q FWS 0+0 dev=${device}
      4 D FN 0+0 dev=${device}
      5 C FN 0+0 dev=${device}
      9 C FN 0+0 dev=${device}`);
    expect([...table.issued]).toEqual([2, 4]);
    expect([...table.completed]).toEqual([5, 9]);
    expect(table.counts).toMatchObject({ withoutQueue: 0, withoutEnd: 0 });
  });

  test('for data: the flush is a request that nobody queued, the data are their own', async () => {
    const table = await paired(`
      1 Q FWFS 64+8
      2 G FWFS 64+8
      3 D FN
      4 C FN
      5 D WS 64+8
      6 C WS 64+8
      7 D FN
      8 C FN
      9 C WS`);
    expect(rows(table)).toEqual(['64+8: 1 2 . 5 6', '0+0: . . . 3 4', '0+0: . . . 7 8']);
    expect(table.counts).toMatchObject({ withoutQueue: 0, passedOver: 1 });
  });
});

describe('layers', () => {
  test('a remap makes the next request below a child of the one above', async () => {
    expect(await pairedRows(`
      1 Q W 0+16 dev=100
      2 A W 1000+8 dev=200 <0@100
      3 Q W 1000+8 dev=200
      4 A W 5000+8 dev=200 <8@100
      5 Q W 5000+8 dev=200
      6 Q W 7000+8 dev=200   # nobody's
      7 C W 5000+8 dev=200
      8 C W 1000+8 dev=200
      9 C W 0+16 dev=100`)).toEqual(['0+16: 1 . . . 9', '1000+8: 3 . . . 8 of 0', '5000+8: 5 . . . 7 of 0', '7000+8: 6 . . . .']);
  });

  test('over a layer that was not recorded', async () => {
    expect(await pairedRows(`
      1 Q W 0+8 dev=100
      2 A W 63+8 dev=300 <0@100
      3 A W 2111+8 dev=200 <63@300
      4 Q W 2111+8 dev=200`)).toEqual(['0+8: 1 . . . .', '2111+8: 4 . . . . of 0']);
  });

  test('a partition of which nothing was recorded has no requests', async () => {
    expect(await pairedRows(`
      1 A R 2056+8 dev=200 <8@201
      2 Q R 2056+8 dev=200`)).toEqual(['2056+8: 2 . . . .']);
  });

  test('a flush has children too', async () => {
    expect(await pairedRows(`
      1 Q FWS dev=100
      2 A FWS dev=200 <0@100
      3 Q FWS dev=200
      4 C FWS dev=200
      5 C FWS dev=100`)).toEqual(['0+0: 1 . . . 5', '0+0: 3 . . . 4 of 0']);
  });
});

describe('what does not pair is kept and counted', () => {
  test('at both ends of a trace', async () => {
    const table = await paired(`
      1 C R 0+8
      2 D R 8+8
      3 C R 8+8
      4 G W 16+8
      5 Q R 24+8
      6 D R 24+8`);
    expect(rows(table)).toEqual(['0+8: . . . . 1', '8+8: . . . 2 3', '16+8: . 4 . . .', '24+8: 5 . . 6 .']);
    expect(table.counts).toMatchObject({ withoutQueue: 3, withoutEnd: 2 });
  });

  test('what has no end is given up by age', () => {
    const ios = new OpenIos();
    const pairing = new Pairing(ios, []);
    pairing.add(batchOf(script('0 Q R 0+8')));
    pairing.add(batchOf(script(`${MAX_AGE_NS + 1} Q R 8+8`)));
    expect([ios.count, pairing.counts.withoutEnd]).toEqual([1, 1]);
  });

  test('and by number, and nothing takes time for ever', () => {
    const ios = new OpenIos();
    const pairing = new Pairing(ios, []);
    const records: ScriptRecord[] = [];
    for (let at = 0; at < MAX_OPEN + 1000; at++) records.push({ time: at, action: at % 2 === 0 ? 'Q' : 'D', rwbs: 'W', sector: at % 3 === 0 ? 64 : at * 8, sectors: 8 });
    pairing.add(batchOf(records));
    expect(ios.count).toBeLessThanOrEqual(MAX_OPEN);
    pairing.finish();
    expect(ios.count).toBe(0);
  });
});

describe('what our recordings say', () => {
  test('layers, names and causes', async () => {
    const table = await buildIoTable(readerOf([
      message(0, 'quiesce device=4000,1 layer=metadata driver=qcow2 node=disk0 name=/images/vm.qcow2', 7),
      message(0, 'quiesce process=5000001 name=mirror m0', 7),
      message(1, 'quiesce cause=l2-alloc op=write-zeroes offset=4096 bytes=512', 7),
      ...script(`
        1 Q W 8+1 dev=7 pid=5000001
        2 Q W 16+1 dev=7`),
      message(3, 'quiesce offset=4096 bytes=512', 7),
      message(3, 'somebody else', 7),
      ...script('4 Q W 24+1 dev=7'),
      message(5, 'quiesce cause=cow offset=4096 bytes=512', 8),
      ...script(`
        6 Q W 24+1 dev=7
        7 Q W 24+1 dev=8`),
    ]));
    expect(Array.from(table.cause, (cause) => table.causes[cause])).toEqual(['l2-alloc', '', '', '', 'cow']);
    expect([...table.deviceNames]).toEqual([[deviceOf(4000, 1), 'metadata vm.qcow2']]);
    expect([...table.processes]).toEqual([[5_000_001, 'mirror m0']]);
  });
});

test('random requests pair as they were made, many with the same sectors', async () => {
  let seed = 1;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 0x7fff_ffff;
    return seed % below;
  };
  const records: ScriptRecord[] = [];
  const expected: string[] = [];
  // of those with the same sectors, device and operation the first in is the first out
  const ends = new Map<string, number>();
  for (let at = 0; at < 3000; at++) {
    const rwbs = random(2) === 0 ? 'R' : 'W';
    const sector = random(40) * 8;
    const sectors = (1 + random(2)) * 8;
    const device = 1 + random(2);
    const queued = at * 100;
    const key = `${rwbs} ${sector} ${sectors} ${device}`;
    const issued = Math.max(queued + 1 + random(500), (ends.get(`${key} D`) ?? 0) + 1);
    const completed = Math.max(issued + 1 + random(3000), (ends.get(key) ?? 0) + 1);
    ends.set(`${key} D`, issued).set(key, completed);
    const io = { rwbs, sector, sectors, device };
    records.push({ ...io, time: queued, action: 'Q' }, { ...io, time: issued, action: 'D' }, { ...io, time: completed, action: 'C' });
    expected.push(`${sector}+${sectors}: ${queued} . . ${issued} ${completed}`);
  }
  const table = await buildIoTable(readerOf(records.sort((a, b) => a.time - b.time), { batch: 512 }));
  expect(rows(table)).toEqual(expected);
});

test('a table tells how far it is, and stops when asked to', async () => {
  const seen: number[] = [];
  const stop = new AbortController();
  const lines = Array.from({ length: 20 }, (_, at) => `${at} Q R ${at * 8}+8`).join('\n');
  const building = buildIoTable(readerOf(lines), { signal: stop.signal, onProgress: ({ records }) => {
    seen.push(records);
    if (records === 14) stop.abort(new Error('enough'));
  } });
  await expect(building).rejects.toThrow('enough');
  expect(seen).toEqual([7, 14]);
});
