/** What a live trace has at hand is the end of what the whole of it gives. */
import { describe, expect, test } from '@jest/globals';
import { join } from 'node:path';
import { buildIoTable } from '../../../src/trace/analysis/analyse.js';
import { openTrace } from '../../../src/trace/read/open.js';
import type { IoTable } from '../../../src/trace/traced-io.js';
import { loadTrace } from '../../../src/viewer/load.js';
import { LiveTrace } from '../../../src/viewer/live-trace.js';
import { repository } from '../../support/run.js';

const COLUMNS = ['device', 'sector', 'bytes', 'category', 'pid', 'queued', 'gotRequest', 'inserted', 'issued', 'completed', 'error'] as const;
const LINKS = ['parent', 'mergedInto'] as const;

async function live(name: string, keep: number): Promise<LiveTrace> {
  const trace = new LiveTrace(await openTrace(join(repository, 'fixtures', 'trace', name)), keep);
  await trace.read(() => undefined, new AbortController().signal);
  return trace;
}

function column(table: IoTable, name: (typeof COLUMNS)[number] | (typeof LINKS)[number], from = 0): number[] {
  return [...table[name].subarray(from, table.count)];
}

describe.each(['synth-mixed', 'qemu-savevm', 'qemuio-rmw'])('%s', (name) => {
  test('all of it, where all is kept', async () => {
    const whole = await buildIoTable(await openTrace(join(repository, 'fixtures', 'trace', name)));
    const table = (await live(name, 10_000)).now().table;
    expect(table.count).toBe(whole.count);
    for (const of of [...COLUMNS, ...LINKS]) expect({ of, values: column(table, of) }).toEqual({ of, values: column(whole, of) });
    expect([table.endNs, table.processes]).toEqual([whole.endNs, whole.processes]);
  });

  test('the last of it, where less is kept', async () => {
    const whole = await buildIoTable(await openTrace(join(repository, 'fixtures', 'trace', name)));
    const trace = await live(name, 100);
    const table = trace.now().table;
    expect(table.count).toBe(100);
    const first = whole.count - 100;
    for (const of of COLUMNS) expect({ of, values: column(table, of) }).toEqual({ of, values: column(whole, of, first) });
    for (const of of LINKS) expect(column(table, of)).toEqual(column(whole, of, first).map((row) => row >= first ? row - first : -1));
  });
});

test('findings are those of the whole trace, with the rows that are kept', async () => {
  const whole = await loadTrace(join(repository, 'fixtures', 'trace', 'qemuio-rmw'));
  expect(whole.findings.map(({ severity }) => severity)).toContain('critical');
  expect((await live('qemuio-rmw', 10_000)).now().findings).toEqual(whole.findings);
  const { table, findings } = (await live('qemuio-rmw', 20)).now();
  expect(findings.map(({ title, region }) => ({ title, region }))).toEqual(whole.findings.map(({ title, region }) => ({ title, region })));
  for (const row of findings.flatMap(({ evidence }) => evidence)) expect(row).toBeLessThan(table.count);
});

test('what is under way is there before it ends', async () => {
  const trace = new LiveTrace(await openTrace(join(repository, 'fixtures', 'trace', 'synth-mixed')), 1000);
  const counts: number[] = [];
  await trace.read(() => counts.push(trace.now().table.count), new AbortController().signal);
  expect(counts.length).toBeGreaterThan(0);
  expect(counts.at(-1)).toBe(674);
});
