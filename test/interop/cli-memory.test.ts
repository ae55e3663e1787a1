/** A gigabyte of RAM state goes in and out with less than 200 MiB of memory, at its highest. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeImage, MiB, startQuiesce } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const LIMIT = 200 * MiB;

/** The peak of the process' resident memory, asked for until it is gone. */
async function peakMemory(args: readonly string[]): Promise<number> {
  const { child, done } = startQuiesce(args);
  let peak = 0;
  const look = setInterval(() => { peak = Math.max(peak, highWater(child.pid!)); }, 5);
  const result = await done;
  clearInterval(look);
  expect(result).toMatchObject({ code: 0, stderr: '' });
  return peak;
}

function highWater(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0; // it has just ended
  }
}

peers('qemu-img')('1 GiB of RAM state', () => {
  test('takes less than 200 MiB of memory in snapshot create, load and extract', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('truncate', ['-s', '1G', tmp('ram')]);
    for (const args of [['create', image, 't', '--vm-state', tmp('ram')], ['load', image, 't', '--vm-state', '/dev/null'], ['extract', image, 't', '--cache', 'writeback', '--vm-state', '/dev/null']]) {
      const peak = await peakMemory(['snapshot', ...args]);
      expect(peak).toBeGreaterThan(20 * MiB);
      expect(peak).toBeLessThan(LIMIT);
    }
    await runOk('qemu-img', ['check', '-q', image]);
  });
});
