/** Whatever ends or stops the full-screen viewer, the shell gets its terminal back. */
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { launcher } from '../support/run.js';
import { useTmux, type Tmux } from '../support/tmux.js';

peers('tmux')('signals to quiesce trace view', () => {
  const terminal = useTmux();

  async function opened(): Promise<Tmux> {
    const tmux = await terminal({ columns: 80, rows: 24 });
    await tmux.type('clear; echo before');
    await tmux.untilText(/^before\n\$/);
    await tmux.type(`'${launcher}' trace view fixtures/trace/qemuio-rmw; echo "code $?"`);
    await tmux.untilText('q quit');
    return tmux;
  }

  test('Ctrl-Z and fg', async () => {
    const tmux = await opened();
    await tmux.keys('+');
    await tmux.untilText(/ s of /);
    await tmux.keys('C-z');
    await tmux.untilText('Stopped');
    expect(await tmux.isAlternate()).toBe(false);
    // the terminal is the shell's: it edits and echoes
    await tmux.type('echo one two');
    await tmux.untilText(/\none two\n/);
    await tmux.type('fg');
    const back = await tmux.until('the viewer', (lines) => lines.at(-1)?.includes('q quit') === true);
    expect(back[0]).toContain(' s of ');
    await tmux.keys('q');
    await tmux.untilText(/before[^]*one two[^]*\$ fg\n[^]*\n\$\s*$/);
  });

  test.each([['TERM', 143], ['INT', 130], ['HUP', 129]])('SIG%s', async (name, code) => {
    const tmux = await opened();
    const [pid] = await tmux.childPids();
    process.kill(pid!, `SIG${name}` as NodeJS.Signals);
    const after = await tmux.untilText(`code ${code}`);
    expect(after[0]).toBe('before');
    expect(await tmux.isAlternate()).toBe(false);
    await tmux.type('echo still here');
    await tmux.untilText(/\nstill here\n/);
  });

  test('a stop from elsewhere gives the terminal back too', async () => {
    const tmux = await opened();
    const [pid] = await tmux.childPids();
    process.kill(pid!, 'SIGTSTP');
    await tmux.untilText('Stopped');
    expect(await tmux.isAlternate()).toBe(false);
    await tmux.type('fg');
    await tmux.untilText('q quit');
    await tmux.keys('C-c');
    await tmux.untilText(/before[^]*Stopped/);
  });

  test('a trace that cannot be read is told on the screen that was there', async () => {
    const tmux = await terminal({ columns: 100, rows: 24 });
    await tmux.type(`'${launcher}' trace view /nonexistent/trace; echo "code $?"`);
    await tmux.untilText(/quiesce: there is neither a trace[^]*code 1/);
    expect(await tmux.isAlternate()).toBe(false);
  });
});
