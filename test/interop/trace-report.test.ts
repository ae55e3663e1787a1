/** `quiesce trace report` on the command line: text, JSON, standard input, limits and what the exit code says. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { expectRefused, quiesceOk } from '../support/cli.js';
import { quiesce, repository } from '../support/run.js';

const fixtures = join(repository, 'fixtures', 'trace');
const capture = (name: string): string => join(fixtures, name);

describe('a report', () => {
  test('begins with what is wrong, and goes on with numbers', async () => {
    const text = await quiesceOk(['trace', 'report', capture('qemuio-rmw')]);
    expect(text).toMatch(/^1\. critical: Read-modify-write \(rmw\), device 7,0\n {3}120 of 120 writes wait for one or two small reads/);
    expect(text).toMatch(/\n\d\. warning: One request at a time \(depth-1\)/);
    for (const part of [/^Q2C +0\.000019550 +0\.000063200 +0\.005154400 +362$/m, /^7,0 +D2C +361 /m, /^7,0 +in the device +1\.00 +1 /m, /^qemu-io \d+ +7,0 /m]) expect(text).toMatch(part);
  });

  test('says so where nothing is wrong', async () => {
    expect(await quiesceOk(['trace', 'report', capture('synth-mixed')])).toMatch(/^Nothing that looks wrong was found\.\n\n2908 records, 674 requests, /);
  });

  test('is JSON for programs, of standard input too', async () => {
    const input = gunzipSync(readFileSync(capture('backwards.bin.gz')));
    const report = JSON.parse(await quiesceOk(['trace', 'report', '-', '--json'], { input })) as {
      readonly requests: number; readonly findings: readonly object[]; readonly devices: readonly object[]; readonly btt: { readonly all: Readonly<Record<string, object>> };
    };
    expect(report).toMatchObject({
      requests: 600, broken: [], findings: [{ rule: 'random', severity: 'warning', device: '7,0', evidence: [{ id: 0 }, {}, {}, {}, {}, {}, {}, {}] }],
      devices: [{ device: '7,0', reads: { count: 600, bytes: 600 * 65_536 }, spans: { q2c: { count: 600 } } }], btt: { all: { Q2C: { count: 600 }, G2I: { count: 0, min: null } } },
    });
  });
});

describe('for continuous integration', () => {
  test.each([
    [['--max', 'd2c.p50=1s', '--max', 'read.max=10s', '--fail-on', 'critical,rmw'], 0],
    [['--fail-on', 'warning'], 3],
    [['--fail-on', 'rmw,random'], 3],
    [['--max', 'd2c.p50=1s', '--max', 'q2c.avg=1ns'], 3],
    [['--max', 'write.max=1ns'], 0],
  ])('%j ends with %d', async (options, code) => {
    const result = await quiesce(['trace', 'report', '-', ...options], { input: gunzipSync(readFileSync(capture('backwards.bin.gz'))) });
    expect([result.code, result.stderr]).toEqual([code, '']);
    expect(result.stdout.includes('Not kept:')).toBe(code === 3);
  });

  test('what cannot be read is another failure, and so is a limit that is none', async () => {
    await expectRefused(['trace', 'report', join(fixtures, 'nothing')], 'there is neither a trace');
    await expectRefused(['trace', 'report', capture('qemuio-rmw'), '--max', 'q2c.p99=10'], "the limit 'q2c.p99=10' is none", 2);
    await expectRefused(['trace', 'report', capture('qemuio-rmw'), '--fail-on', 'rwm'], "there is no rule or severity 'rwm'", 2);
  });

  test('damage is told', async () => {
    const whole = gunzipSync(readFileSync(capture('trickle.bin.gz')));
    const result = await quiesce(['trace', 'report', '-'], { input: Buffer.concat([whole, Buffer.from('no record')]) });
    expect([result.code, result.stderr]).toEqual([0, 'quiesce: warning: 9 bytes in 1 place are no records, and were skipped\n']);
  });
});
