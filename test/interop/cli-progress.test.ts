/** Progress bars: on a terminal only, with rate and ETA, on standard error; a pipe gets none. */
import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { makeImage, MiB, sleep } from '../support/cli.js';
import { appears } from '../support/listening.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, launcher, quiesce, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const ESCAPE = '\u001b';
const SHOW_CURSOR = '\u001b[?25h';
const LINE_START = '\u001b[1G';
const HIDE_CURSOR = '\u001b[?25l';

function quoted(args: readonly string[]): string {
  return args.map((word) => `'${word}'`).join(' ');
}

/** Runs a command line on a terminal of its own, 80 columns wide; its standard output and error arrive together. */
async function onTerminal(commandLine: string): Promise<{ code: number | null; text: string }> {
  const { code, stdout } = await run('script', ['-qec', `stty cols 80; ${commandLine}`, '/dev/null'], { env: { TERM: 'xterm' } });
  return { code, text: stdout };
}

peers('script', 'qemu-img')('progress', () => {
  test('is a bar with rate and ETA on a terminal, and the cursor comes back', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), randomBytes(8 * MiB, 1));
    const created = await onTerminal(quoted([launcher, 'snapshot', 'create', image, 't', '--vm-state', tmp('ram')]));
    expect(created.code).toBe(0);
    expect(created.text).toMatch(/receiving RAM state █+ 100% {2}8 MiB of 8 MiB {2}\S+ [KMG]iB\/s {2}ETA \S+/);
    expect(created.text).toMatch(/\nsnapshot 't' of '\S+' is durable \(id 1, 8 MiB of RAM state\)\r\n$/);
    const bars = created.text.split(LINE_START).filter((line) => line.includes('ETA'));
    expect(Math.max(...bars.map((line) => /^.*ETA \S+s/.exec(line)![0].length))).toBeLessThanOrEqual(80);
    expect(created.text.lastIndexOf(SHOW_CURSOR)).toBeGreaterThan(created.text.lastIndexOf(HIDE_CURSOR));
    const loaded = await onTerminal(quoted([launcher, 'snapshot', 'load', image, 't', '--vm-state', tmp('back')]));
    expect(loaded.text).toMatch(/sending RAM state █+ 100% {2}8 MiB of 8 MiB/);
  });

  test('of a stream of unknown length shows what came and how fast', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), randomBytes(2 * MiB, 1));
    const { code, text } = await onTerminal(`cat '${tmp('ram')}' | ${quoted([launcher, 'snapshot', 'create', image, 't', '--vm-state', '-'])}`);
    expect([code, text]).toEqual([0, expect.stringMatching(/receiving RAM state {2}2 MiB {2}\S+ [KMG]iB\/s/)]);
  });

  test('of a socket tells first what is waited for', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    const { code, text } = await onTerminal(`timeout -s INT 1.5 ${quoted([launcher, 'snapshot', 'create', image, 't', '--vm-state', `unix:${tmp('socket')}`])}`);
    expect(code).not.toBe(0);
    expect(text).toContain(`waiting for the RAM state; in QEMU: stop, then migrate unix:${tmp('socket')}\r\n`);
  });

  test('of a mirror that is steered shows its phase, what is dirty, when it will be ready, and how fast it copies', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 0 6M', image]);
    await runOk('truncate', ['-s', '16M', tmp('copy.raw')]);
    const slow = { driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'g', file: { driver: 'file', filename: tmp('copy.raw') } };
    const daemon = start(storageDaemonLauncher, [
      '--object', 'throttle-group,id=g,x-bps-write=3000000', '--blockdev', `qcow2,node-name=disk,file.driver=file,file.filename=${image}`, '--blockdev', JSON.stringify(slow),
      '--chardev', `socket,id=m,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=m',
    ]);
    try {
      await appears(tmp('qmp'));
      const { code, text } = await onTerminal(quoted([launcher, 'mirror', '--daemon', tmp('qmp'), 'disk', 'slow', '--verify']));
      expect(code).toBe(0);
      const bars = text.split(LINE_START);
      expect(bars).toContainEqual(expect.stringMatching(/^mirror bulk [█░]+ \d+% {2}\S+ [KM]iB dirty {2}ETA \S+( s)? {2}\S+ [KM]iB\/s copied/));
      const lengths = bars.filter((line) => line.startsWith('mirror')).map((line) => line.split(ESCAPE)[0]!.trimEnd().length);
      expect(Math.max(...lengths)).toBeLessThanOrEqual(80);
      expect(text).toMatch(/\n'slow' is what 'disk' was: .*; both were equal\r\n$/);
    } finally {
      await kill(daemon);
    }
  });

  test('goes to standard error: a piped standard output has results only', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), randomBytes(2 * MiB, 1));
    const { text } = await onTerminal(`${quoted([launcher, 'snapshot', 'create', image, 't', '--vm-state', tmp('ram')])} > '${tmp('out')}'`);
    expect(text).toContain('receiving RAM state');
    expect(await runOk('cat', [tmp('out')])).toMatch(/^snapshot 't' of '[^\n]*\n$/);
  });

  test('is nothing where standard error is a pipe', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), randomBytes(2 * MiB, 1));
    expect(await quiesce(['snapshot', 'create', image, 't', '--vm-state', tmp('ram')])).toMatchObject({ code: 0, stderr: '' });
    expect(await quiesce(['snapshot', 'extract', image, 't', '--vm-state', tmp('back')])).toMatchObject({ code: 0, stderr: '' });
    expect(await quiesce(['image', 'check', image])).toMatchObject({ code: 0, stderr: '' });
  });

  test('is taken off the terminal by Ctrl-C, and the error stands on a line of its own', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('mkfifo', [tmp('fifo')]);
    const terminal = start('script', ['-qec', quoted([launcher, 'snapshot', 'create', image, 't', '--vm-state', tmp('fifo')]), '/dev/null'], { env: { TERM: 'xterm' } });
    let text = '';
    terminal.stdout!.on('data', (data: Buffer) => { text += data.toString(); });
    // opened for reading as well, so that neither end waits for the other
    const writer = await open(tmp('fifo'), 'r+');
    const writing = writer.write(randomBytes(3 * MiB, 1));
    for (let wait = 0; !text.includes('  3 MiB  ') && wait < 500; wait++) await sleep(20);
    const ended = new Promise<number | null>((resolve) => { terminal.once('close', resolve); });
    terminal.stdin!.write('\u0003');
    expect(await ended).toBe(130);
    await writing;
    await writer.close();
    const [bar, error] = text.trimEnd().split('\r\n').slice(-2);
    expect([bar, error]).toEqual([expect.stringContaining('MiB/s'), expect.stringMatching(/^\S*quiesce: reading the VM state from '\S+' was cancelled$/)]);
    expect(text.lastIndexOf(SHOW_CURSOR)).toBeGreaterThan(text.lastIndexOf(HIDE_CURSOR));
  });
});
