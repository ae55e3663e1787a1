/** Any table, any keys, any size: a screen comes of it, and it is the one that is drawn whole. */
import { expect, test } from '@jest/globals';
import { Random } from '../../../../src/base/clock.js';
import type { IoTable } from '../../../../src/trace/traced-io.js';
import { TraceModel } from '../../../../src/viewer/model.js';
import { textReport } from '../../../../src/viewer/terminal/report.js';
import { widthOf } from '../../../../src/viewer/terminal/text.js';
import { TerminalViewer } from '../../../../src/viewer/terminal/viewer.js';
import { FakeScreen } from '../../../support/fake-screen.js';
import { ioTable, type MadeUpIo } from '../../../support/io-tables.js';

const KEYS = [
  '+', '-', 'left', 'right', 'up', 'down', '[', ']', 'z', 'h', 'j', 'k', 'l', 'H', 'K', '>', '<', 'n', 'N', 'enter', 'space', 'o', 'p', 'd', 'x', 'c', '0', 'home', 'end', 'f', 'tab',
  'shift-tab', 'page-up', 'page-down', 'shift-left', 'm', '?', 'escape',
] as const;

function randomTable(random: Random): IoTable {
  const pick = (below: number): number => random.below(below);
  const ios: MadeUpIo[] = [];
  let at = 0;
  for (let left = pick(150); left > 0; left--) {
    at += pick(3) === 0 ? 0 : pick(10) ** pick(8);
    ios.push({
      at, took: pick(10) === 0 ? null : pick(10) ** pick(9), op: 'RWFD'.charAt(pick(4)) as 'R', sector: pick(20) === 0 ? 2 ** 50 : pick(10) ** pick(12), bytes: pick(4) === 0 ? 0 : 512 * (1 + pick(5000)),
      pid: pick(20), device: 4000 * 0x10_0000 + pick(12), error: pick(12) === 0 ? 5 : 0, parent: ios.length > 0 && pick(3) === 0 ? pick(ios.length) : -1, ...pick(3) === 0 ? { cause: 'l2-alloc' } : {},
    });
  }
  return ioTable(ios, { processes: [[1, '漢字'], [2, '\u001b[2J'], [3, 'e\u0301\u0301\u0301']], devices: [[4000 * 0x10_0000, '\u202eguest disk 한국어']] });
}

test.each(Array.from({ length: 8 }, (_, seed) => seed))('seed %d', (seed) => {
  const random = new Random(seed);
  const table = randomTable(random);
  const model = new TraceModel(table);
  const findings = Array.from({ length: random.below(5) }, (_, index) => ({
    severity: 'warning' as const, title: `finding ${index} 漢字`, text: 'x'.repeat(random.below(300)), cure: '', devices: [], region: { from: random.below(1e9), to: random.below(1e9) },
    evidence: table.count === 0 ? [] : [random.below(table.count)],
  }));
  const look = { ascii: random.below(4) === 0, colours: (['none', '16', '256'] as const)[random.below(3)]! };
  const shown = { model, findings, source: { name: 'trace \u0007', live: random.below(2) === 0, notice: random.below(2) === 0 ? 'half of it is missing' : '' } };
  const viewer = new TerminalViewer(look);
  viewer.show(shown);
  let size = { columns: 80, rows: 24 };
  let screen = new FakeScreen(80, 24);
  screen.write(viewer.paint(size));
  for (let step = 0; step < 40; step++) {
    if (random.below(10) === 0) {
      size = { columns: 20 + random.below(200), rows: 5 + random.below(60) };
      screen = new FakeScreen(size.columns, size.rows);
    }
    if (random.below(15) === 0) viewer.show(shown);
    viewer.key(KEYS[random.below(KEYS.length)]!, size);
    screen.write(viewer.paint(size));
  }
  const changed = screen.lines();
  viewer.forget();
  const whole = new FakeScreen(size.columns, size.rows);
  whole.write(viewer.paint(size));
  expect(changed).toEqual(whole.lines());
  for (const line of textReport(shown, { ...look, colours: 'none', columns: 40 + random.below(100) })) expect(widthOf(line)).toBeLessThanOrEqual(140);
});
