/** What `quiesce trace convert` makes is what blktrace's tools and fio take: no complaint, and the counts are those of the trace. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { captures } from '../support/blkparse.js';
import { peers } from '../support/peers.js';
import { quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
/** Of each capture, as blkparse counts: events with messages, and what was queued. */
const COUNTS = {
  'qemu-savevm': { events: 964, read: 66, write: 68, trim: 1, sync: 33 },
  'qemuio-rmw': { events: 2173, read: 242, write: 120, trim: 0, sync: 1 },
  'synth-mixed': { events: 2902, read: 267, write: 386, trim: 1, sync: 20 },
} as const;
const NAMES = Object.keys(COUNTS) as (keyof typeof COUNTS)[];

async function convert(name: string, out: string): Promise<void> {
  const { code, stdout, stderr } = await quiesce(['trace', 'convert', join(captures, name), tmp(out)]);
  expect([code, stdout, stderr]).toEqual([0, '', '']);
}

interface FioJob { readonly jobs: [Record<'read' | 'write' | 'trim' | 'sync', { readonly total_ios: number }>] }

/** How many of each fio issued when it replayed `log` into nothing. */
async function replayed(log: string): Promise<Record<string, number>> {
  const output = await runOk('fio', ['--name=replay', `--read_iolog=${tmp(log)}`, '--ioengine=null', `--replay_redirect=${tmp('scratch')}`, '--replay_no_stall=1', '--output-format=json'], { cwd: tmp() });
  const [job] = (JSON.parse(output.slice(output.indexOf('{'))) as FioJob).jobs;
  return Object.fromEntries((['read', 'write', 'trim', 'sync'] as const).map((kind) => [kind, job[kind].total_ios]));
}

describe.each(NAMES)('%s', (name) => {
  const { events, read, write, trim, sync } = COUNTS[name];

  peers('blkparse', 'btt', 'iowatcher', 'fio')('as one dump', () => {
    beforeEach(() => convert(name, 'all.bin'));

    test('blkparse sees every event, and no skip', async () => {
      const { stdout, stderr } = await run('blkparse', ['-i', '-'], { input: readFileSync(tmp('all.bin')) });
      expect(stderr).toBe('');
      expect(stdout).toMatch(new RegExp(`^Events \\(\\d,0\\): ${events} entries\nSkips: 0 forward`, 'm'));
    });

    test("btt measures what it measures of blkparse's dump", async () => {
      const table = async (dump: string): Promise<string> => {
        const { code, stdout, stderr } = await run('btt', ['-i', tmp(dump)], { cwd: tmp() });
        expect([code, stderr]).toEqual([0, '']);
        return stdout.slice(stdout.indexOf('All Devices'), stdout.indexOf('Device Merge'));
      };
      await runOk('blkparse', ['-O', '-i', join(captures, name), '-d', tmp('theirs.bin')]);
      const ours = await table('all.bin');
      expect(ours).toMatch(/^Q2C .* \d{3}$/m);
      expect(ours).toBe(await table('theirs.bin'));
    });

    test('iowatcher draws it', async () => {
      const { code, stderr } = await run('iowatcher', ['-t', tmp('all.bin'), '-o', tmp('all.svg')], { cwd: tmp() });
      expect([code, stderr]).toEqual([0, '']);
      expect(statSync(tmp('all.svg')).size).toBeGreaterThan(10_000);
    });

    test('fio replays what was queued', async () => {
      expect(await replayed('all.bin')).toEqual({ read, write, trim, sync });
    });
  });

  peers('fio')('as a log', () => {
    test('fio replays what was queued, but discards, which it does not take from a log', async () => {
      await convert(name, 'all.log');
      expect(readFileSync(tmp('all.log'), 'utf8').match(/ trim /g) ?? []).toHaveLength(trim);
      expect(await replayed('all.log')).toEqual({ read, write, trim: 0, sync });
    });
  });

  peers('blkparse')('as CSV', () => {
    test('it has the fields of blkparse, line for line', async () => {
      await convert(name, 'all.csv');
      const theirs = await runOk('blkparse', ['-i', join(captures, name), '-q', '-f', '%T%9t,%M:%m,%c,%s,%p,%C,%a,%d,%S,%N,%e\\n']);
      const lines = (text: string): string[] => text.split('\n').filter((line) => /^\d+,/.test(line)).map((line) => line.replace(/^0+(?=\d)/, ''));
      const ours = lines(readFileSync(tmp('all.csv'), 'utf8'));
      const messages = ours.filter((line) => /,m,/.test(line));
      expect(messages).toHaveLength(name === 'synth-mixed' ? 2 : 0);
      // an errno has its sign here
      const signed = lines(theirs).map((line) => line.replace(/,65514$/, ',-22'));
      expect(ours.filter((line) => !messages.includes(line)).map((line) => line.replace(/,$/, ''))).toEqual(signed);
    });
  });
});
