/** Each capture has the findings that a practitioner would have, and healthy ones have none: a false alarm is an error. */
import { describe, expect, test } from '@jest/globals';
import { analyseTrace, diagnoseTable, RULE_NAMES } from '../../../../src/index.js';
import { CAPTURES, openCapture } from '../../../support/trace-captures.js';

describe('findings', () => {
  test.each(Object.entries(CAPTURES))('of %s', async (name, expected) => {
    const { findings, counts } = await analyseTrace(await openCapture(name));
    expect(findings.map(({ rule }) => rule).sort()).toEqual([...expected].sort());
    // real captures of whole runs: nothing is left over
    expect(counts).toMatchObject({ withoutQueue: 0, withoutEnd: 0 });
  });

  test('every rule has a capture that shows what it finds', () => {
    expect([...new Set(Object.values(CAPTURES).flat())].sort()).toEqual([...RULE_NAMES].sort());
  });

  test('lead to rows, times and sectors of the table', async () => {
    for (const [name, expected] of Object.entries(CAPTURES)) {
      if (expected.length === 0) continue;
      const { table, findings } = await diagnoseTable(await openCapture(name));
      for (const { rule, evidence, region, device, sentence, cure } of findings) {
        expect([name, rule, evidence.length > 0, region.fromNs < region.toNs, region.toNs <= table.endNs]).toEqual([name, rule, true, true, true]);
        expect(sentence + cure).not.toMatch(/NaN|Infinity|undefined/);
        for (const { id, timeNs, what } of evidence) {
          expect([table.device[id], table.queued[id]]).toEqual([device, timeNs]);
          expect([timeNs >= region.fromNs && timeNs <= region.toNs, what !== '']).toEqual([true, true]);
        }
      }
    }
  });
});
