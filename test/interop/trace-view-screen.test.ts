/** The full-screen viewer in a real terminal emulator: panels, keys, other sizes, and a screen left as it was. */
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { launcher } from '../support/run.js';
import { useTmux, type Tmux } from '../support/tmux.js';

peers('tmux')('quiesce trace view in tmux', () => {
  const terminal = useTmux();
  const command = (trace: string): string => `'${launcher}' trace view fixtures/trace/${trace}`;

  async function opened(columns: number, rows: number, env: Readonly<Record<string, string>> = {}, trace = 'qemu-savevm'): Promise<Tmux> {
    const tmux = await terminal({ columns, rows, env });
    await tmux.type('clear; echo before');
    await tmux.untilText(/^before\n\$/);
    await tmux.type(command(trace));
    await tmux.until('the viewer', (lines) => lines.at(-1)?.includes('q quit') === true && lines.join('').includes('depth'));
    return tmux;
  }

  const axis = (lines: readonly string[]): string => lines.find((line) => line.startsWith('      s '))!;

  test.each([[80, 24], [200, 50]])('panels and keys at %dx%d', async (columns, rows) => {
    const tmux = await opened(columns, rows);
    const whole = await tmux.lines();
    expect(whole[0]).toContain('168 requests  45.7 ms');
    for (const word of ['latency', 'B/s', 'IOPS', 'depth', 'flush', '● read', '● write', 'p50', 'p99', '? help']) expect(whole.join('\n')).toContain(word);
    expect(whole.join('')).toMatch(/[⠁-⣿]{2}/);
    expect(await tmux.coloured()).toMatch(/\[38;5;/);

    await tmux.keys('+', '+');
    const near = await tmux.untilText(/ of 45\.7 ms/);
    expect(axis(near)).not.toBe(axis(whole));
    await tmux.keys('Right');
    const moved = await tmux.until('the map to be panned', (lines) => axis(lines) !== axis(near));
    await tmux.keys('Left');
    await tmux.until('it to be panned back', (lines) => axis(lines) === axis(near));
    expect(axis(moved)).not.toBe(axis(whole));

    await tmux.keys('>');
    await tmux.untilText(/#\d+ \w+ .*qemu-system-x86/);
    await tmux.untilText(/[QG]→[GD] /);
    await tmux.keys('c');
    await tmux.untilText('by process');
    await tmux.keys('?');
    await tmux.untilText('next panel: findings, map, requests');
    await tmux.keys('Escape', '0');
    await tmux.until('the whole trace again', (lines) => axis(lines) === axis(whole));

    await tmux.keys('q');
    const after = await tmux.until('the prompt', (lines) => lines.filter((line) => line.startsWith('$')).length >= 2);
    expect(after[0]).toBe('before');
    expect(after.join('\n')).not.toMatch(/latency|depth/);
    expect(await tmux.isAlternate()).toBe(false);
  });

  test('findings come first, and each leads to where it happened', async () => {
    const tmux = await opened(80, 24, {}, 'qemuio-rmw');
    const whole = await tmux.lines();
    expect(whole[1]).toMatch(/!! Read-modify-write: 120 of 120 writes wait for/);
    expect(whole[2]).toContain('!  Misaligned writes');
    await tmux.keys('n');
    const first = await tmux.untilText(/▸!! Read-modify-write/);
    expect(first.join('\n')).toContain('Let writes begin and end at the block size');
    expect(first.join('\n')).toMatch(/#\d+ [RW]S \S+ at /);
    expect(axis(first)).not.toBe(axis(whole));
    await tmux.keys('n');
    await tmux.untilText(/▸! {2}Misaligned writes/);
    await tmux.keys('Up', 'Enter');
    await tmux.untilText(/▸!! Read-modify-write/);
  });

  test('another size is drawn anew', async () => {
    const tmux = await opened(80, 24);
    await tmux.resize(200, 50);
    const large = await tmux.until('200x50', (lines) => lines.length === 50 && lines[49]!.includes('q quit') && lines.join('').includes('time s'));
    expect(axis(large).length).toBeGreaterThan(150);
    await tmux.resize(60, 20);
    await tmux.until('60x20', (lines) => lines.length === 20 && lines[19]!.includes('q quit'));
    await tmux.resize(30, 8);
    await tmux.untilText('too small');
    await tmux.resize(80, 24);
    await tmux.until('80x24', (lines) => lines.length === 24 && lines[23]!.includes('q quit'));
    await tmux.keys('q');
    await tmux.until('the prompt', (lines) => lines.at(0) === 'before' && lines.filter((line) => line.startsWith('$')).length >= 2);
  });

  test('a terminal that can do nothing but lines gets the text', async () => {
    const tmux = await terminal({ columns: 100, rows: 50 });
    await tmux.type(`clear; TERM=dumb ${command('qemu-savevm')}; echo "code $?"`);
    const lines = await tmux.untilText(/took process[^]*\ncode 0\n/);
    expect(lines.join('')).not.toContain('q quit');
    expect(await tmux.isAlternate()).toBe(false);
  });

  test('without colours and without UTF-8', async () => {
    const tmux = await opened(80, 24, { NO_COLOR: '1', LC_ALL: 'C' });
    expect(await tmux.text()).toMatch(/^[ -~\n]*$/);
    expect(await tmux.text()).toContain('R read');
    // tmux writes 256 colours so, 16 ones as 3x and 9x
    expect(await tmux.coloured()).not.toMatch(/\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7]|38;5;\d+)m/);
  });
});
