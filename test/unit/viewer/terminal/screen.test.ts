import { describe, expect, test } from '@jest/globals';
import type { IoTable } from '../../../../src/trace/traced-io.js';
import { TerminalViewer } from '../../../../src/viewer/terminal/viewer.js';
import { textReport } from '../../../../src/viewer/terminal/report.js';
import { widthOf } from '../../../../src/viewer/terminal/text.js';
import type { Look } from '../../../../src/viewer/terminal/scene.js';
import type { ShownFinding } from '../../../../src/viewer/answers.js';
import { TraceModel } from '../../../../src/viewer/model.js';
import { ioTable, layered, readModifyWrites } from '../../../support/io-tables.js';
import { FakeScreen } from '../../../support/fake-screen.js';

const ESC = String.fromCharCode(27);
const SMALL = { columns: 80, rows: 24 };
const LARGE = { columns: 200, rows: 50 };
const COLOURS: Look = { ascii: false, colours: '256' };
const FINDING: ShownFinding = { severity: 'critical', title: 'Read-modify-write', text: 'Align writes to 4 KiB.', cure: 'Do it.', devices: [], region: { from: 50e6, to: 60e6 }, evidence: [152] };

interface Session {
  readonly press: (...keys: readonly string[]) => string[];
}

function session(table: IoTable, size = SMALL, look = COLOURS, findings: readonly ShownFinding[] = [FINDING], name = 'trace'): Session {
  const viewer = new TerminalViewer(look);
  const screen = new FakeScreen(size.columns, size.rows);
  viewer.show({ model: new TraceModel(table), findings, source: { name, live: false, notice: '' } });
  return {
    press: (...keys) => {
      for (const key of keys) viewer.key(key, size);
      screen.write(viewer.paint(size));
      return screen.lines();
    },
  };
}

describe.each([['80x24', SMALL], ['200x50', LARGE]])('at %s', (_, size) => {
  test('all panels stand on the screen', () => {
    const lines = session(readModifyWrites(100), size).press();
    const text = lines.join('\n');
    expect(lines).toHaveLength(size.rows);
    expect(lines[0]).toContain('trace  305 requests');
    expect(lines[1]).toContain('!!');
    expect(lines[1]).toContain('Read-modify-write');
    for (const word of ['latency', 'B/s', 'IOPS', 'depth', 'flush', 'by operation', 'p50', 'p99', 'max', '● read', '● write', '? help', 'q quit']) expect(text).toContain(word);
    expect(text).toMatch(/[⠁-⣿]/);
    expect(text).toMatch(/[░▒▓█]/);
    expect(text).toMatch(/0\.000*─+/);
  });

  test('a screen brought about by changes is the one that is drawn whole', () => {
    const keys = ['+', '+', '>', 'right', 'c', 'tab', 'down', 'n', 'd', 'x', 'm', '?', '?', '-', '0', 'z', 'k', 'l'];
    const step = session(layered(200), size);
    for (let at = 0; at <= keys.length; at++) expect(step.press(...keys.slice(at - 1, at))).toEqual(session(layered(200), size).press(...keys.slice(0, at)));
  });

  test('zooming moves the axis, and a jump goes to the region of a finding', () => {
    const one = session(readModifyWrites(100), size);
    const whole = one.press();
    const near = one.press('+', '+');
    expect(near[0]).toMatch(/0\.0\d+–0\.0\d+ s of/);
    expect(near).not.toEqual(whole);
    const found = one.press('n');
    expect(found[0]).toMatch(/0\.049\d*–0\.060\d* s of/);
    expect(found.join('\n')).toContain('Align writes to 4 KiB.');
    expect(found.join('\n')).toContain('#152 ');
  });
});

test('the waterfall shows a request, what it was made for, and what was made for it', () => {
  const lines = session(layered(20), LARGE).press('>');
  const at = lines.findIndex((line) => line.includes('#0 W 64K at 0B'));
  expect(lines[at]).toContain('guest disk vm.qcow2  nbd client 1 7');
  expect(lines[at + 1]).toContain('Q→G 1.00 µs  G→D 2.00 µs  D→C 347 µs  Q→C 350 µs');
  expect(lines[at + 2]).toMatch(/W 64K 4000,0 guest disk .*━.* {2}350 µs/);
  expect(lines[at + 3]).toMatch(/W 64K 4000,3 host file .*━.* {2}200 µs/);
  expect(lines[at + 4]).toMatch(/W 512B l2-alloc 4000,3 host .*━.* {2}60\.0 µs/);
});

test('the table has its place at 80 columns when it has the focus', () => {
  const lines = session(readModifyWrites(100)).press('tab');
  expect(lines.find((line) => line.includes('time s'))).toMatch(/op .*offset .*size .*took .*process/);
  expect(lines.join('\n')).toContain('qemu-system-x86');
});

test('help names every key, and any key ends it', () => {
  const one = session(readModifyWrites(10));
  const before = one.press();
  const help = one.press('?').join('\n');
  for (const word of ['Tab', '+ -', '[ ]', 'h j k l', '> <', 'n N', 'o p d', 'Ctrl-Z', 'quit']) expect(help).toContain(word);
  expect(one.press('é')).toEqual(before);
});

describe('names that nobody should trust', () => {
  const hostile = ['\u001b[2J\u001b[31mroot', '\u009b31m', '漢字プロセス', 'a\u202eb', 'e\u0301'.repeat(20), '\u0007\r\n'];
  const table = ioTable(hostile.map((_, at) => ({ at: at * 1000, pid: at + 1, sector: at * 8 })), { processes: hostile.map((name, at) => [at + 1, name] as const) });

  test.each([['80x24', SMALL], ['200x50', LARGE]])('stay in their places at %s', (_, size) => {
    const viewer = new TerminalViewer(COLOURS);
    viewer.show({ model: new TraceModel(table), findings: [{ ...FINDING, title: hostile[0]!, text: hostile[1]! }], source: { name: hostile[0]!, live: false, notice: '\u001b]0;x\u0007' } });
    for (const key of ['c', '>', 'tab']) {
      viewer.key(key, size);
      viewer.forget();
      const bytes = viewer.paint(size);
      // our own sequences and nothing else
      expect(bytes.replaceAll(new RegExp(`${ESC}\\[(?:\\d+;\\d+H|[\\d;]*m|2J)`, 'g'), '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
      const screen = new FakeScreen(size.columns, size.rows);
      screen.write(bytes);
      for (const line of screen.lines()) expect(widthOf(line)).toBeLessThanOrEqual(size.columns);
    }
  });
});

describe('without colours', () => {
  test('operations are letters', () => {
    const lines = session(readModifyWrites(100), SMALL, { ascii: false, colours: 'none' }).press();
    expect(lines.slice(2, 10).join('')).toMatch(/R.*W|W.*R/);
    expect(lines.join('\n')).not.toMatch(/[⠁-⣿]/);
    expect(lines.join('\n')).toContain('R read');
  });

  test('and dots are a key away', () => {
    expect(session(readModifyWrites(100), SMALL, { ascii: false, colours: 'none' }).press('m').join('\n')).toMatch(/[⠁-⣿]/);
  });

  test('in ASCII there is nothing else, whatever is pressed', () => {
    const one = session(layered(100), LARGE, { ascii: true, colours: 'none' });
    for (const key of ['>', 'n', 'c', '?', '?', 'tab', 'm', '+', 'k']) expect(one.press(key).join('')).toMatch(/^[ -~]*$/);
  });
});

test('a terminal that is too small is told so, and one without requests too', () => {
  expect(session(readModifyWrites(10), { columns: 30, rows: 8 }).press()[0]).toContain('too small');
  const lines = session(ioTable([]), SMALL, COLOURS, []).press('+', '>', 'tab', 'n');
  expect(lines.join('\n')).toContain('There are no requests');
});

test('what was never completed and what failed is shown', () => {
  const table = ioTable([{ at: 0, took: null, op: 'W' }, { at: 1000, error: 5, sector: 64 }, { at: 2000, op: 'D', sector: 128 }]);
  const one = session(table, LARGE, COLOURS, []);
  expect(one.press('>').join('\n')).toContain('not completed in this trace');
  expect(one.press('>').join('\n')).toContain('ERROR 5');
  expect(one.press().join('\n')).toMatch(/● failed +1/);
});

describe('a live trace', () => {
  const live = (table: IoTable): Parameters<TerminalViewer['show']>[0] => ({ model: new TraceModel(table), findings: [], source: { name: 'pipe', live: true, notice: '' } });

  test('moves along while it is followed, and keeps the chosen request otherwise', () => {
    const viewer = new TerminalViewer(COLOURS);
    const screen = new FakeScreen(80, 24);
    const seen = (): string => {
      screen.write(viewer.paint(SMALL));
      return screen.lines().join('\n');
    };
    viewer.show(live(readModifyWrites(0)));
    expect(seen()).toContain('Waiting for requests');
    viewer.show(live(readModifyWrites(100)));
    expect(seen()).toMatch(/305 requests {2}99\.\d ms {2}LIVE/);
    viewer.show(live(readModifyWrites(200)));
    expect(seen()).toMatch(/610 requests {2}200 ms {2}LIVE/);
    for (const key of ['+', '>', '>']) viewer.key(key, SMALL);
    expect(seen()).toMatch(/of 200 ms {2}live/);
    const chosen = /#\d+ .*/.exec(seen())![0];
    viewer.show(live(readModifyWrites(400)));
    expect(seen()).toContain(chosen);
    viewer.key('f', SMALL);
    expect(seen()).toContain('LIVE');
    viewer.show({ ...live(readModifyWrites(500)), source: { name: 'pipe', live: false, notice: '' } });
    expect(seen()).toMatch(/–0\.49\d* s of 500 ms/);
    expect(seen()).not.toMatch(/live/i);
  });
});

describe('the report', () => {
  const shown = { model: new TraceModel(layered(50)), findings: [FINDING], source: { name: 'trace', live: false, notice: '' } };

  test.each([40, 60, 80, 100, 200])('is no wider than %d columns', (columns) => {
    for (const line of textReport(shown, { columns, ascii: false, colours: 'none' })) expect(widthOf(line)).toBeLessThanOrEqual(columns);
  });

  test('has no escape sequence without colours, and only of styles with them', () => {
    expect(textReport(shown, { columns: 80, ascii: false, colours: 'none' }).join('\n')).not.toContain('\u001b');
    const coloured = textReport(shown, { columns: 80, ascii: false, colours: '16' }).join('\n');
    expect(coloured).toContain('\u001b[0;33');
    expect(coloured.replaceAll(new RegExp(`${ESC}\\[[\\d;]*m`, 'g'), '')).not.toContain('\u001b');
  });

  test('tells findings in full, once', () => {
    const text = textReport(shown, { columns: 80, ascii: true, colours: 'none' }).join('\n');
    expect(text.match(/Read-modify-write/g)).toHaveLength(1);
    expect(text).toContain('Align writes to 4 KiB.');
    expect(text).toMatch(/^[ -~\n]*$/);
  });
});
