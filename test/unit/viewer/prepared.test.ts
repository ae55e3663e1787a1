import { describe, expect, test } from '@jest/globals';
import type { ShownFinding } from '../../../src/viewer/answers.js';
import { TraceModel } from '../../../src/viewer/model.js';
import { prepareViews, reduce } from '../../../src/viewer/prepared.js';
import { GUEST, HOST, makeTable } from '../../support/io-table.js';

const finding: ShownFinding = { severity: 'warning', title: 't', text: '', cure: '', region: { from: 2e9, to: 3e9 }, devices: [GUEST], evidence: [1001] };
const table = makeTable(4000);
const model = new TraceModel(table);

describe('a trace that is too large for a page', () => {
  test('comes as views: all of it, the findings, then each level that fits', () => {
    const views = prepareViews(model, [finding], 300_000);
    expect(views.slice(0, 2).map(({ devices, view: { from, to } }) => [from, to, devices])).toEqual([[0, 1e10 + 1, model.bottomDevices], [1.92e9, 3.08e9, [GUEST]]]);
    const halves = views.slice(2, 5).map(({ view: { from, to } }) => [Math.round(from / 1e8), Math.round(to / 1e8)]);
    expect(halves).toEqual([[0, 50], [25, 75], [50, 100]]);
    // a level is there as a whole or not at all
    expect([0, 3, 10, 25, 56]).toContain(views.length - 2);
  });

  test('has all of it and the findings, however little room there is', () => {
    expect(prepareViews(model, [finding], 1)).toHaveLength(2);
  });

  test('keeps the evidence with its family, and one request in so many', () => {
    const { table: small, facts } = reduce(model, { name: '', records: 1, remarks: [], findings: [finding] }, 100);
    expect(small.count).toBeLessThan(120);
    const row = facts.findings[0]!.evidence[0]!;
    for (const name of ['queued', 'sector', 'completed', 'device'] as const) expect(small[name][row]).toBe(table[name][1001]);
    const names = (of: TraceModel, at: number): unknown => of.family(at).members.map(({ row: member, how }) => [of.table.queued[member], how]);
    expect(names(new TraceModel(small), row)).toEqual(names(model, 1001));
    expect([...small.queued]).toEqual([...small.queued].toSorted((a, b) => a - b));
    expect(model.bottomDevices).toContain(HOST);
  });
});
