/** snapshot-save, -load and -delete over several live disks: events, refusals and images as a machine of QEMU's has them. */
import { expect, test } from '@jest/globals';
import { QmpClient, StorageDaemon } from '../../src/index.js';
import { leaksAtMost, makeImage, snapshotNames } from '../support/cli.js';
import { startMachine } from '../support/machine.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
type Args = Readonly<Record<string, unknown>>;

const SCRIPT: readonly (readonly [string, Args])[] = [
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: [] }],
  ['snapshot-save', { tag: 't', vmstate: 'nope', devices: ['a'] }],
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: ['nope'] }],
  ['snapshot-save', { tag: 't', vmstate: 'b', devices: ['a'] }],
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: ['a', 'r'] }],
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: ['a', 'o'] }],
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: ['b', 'a'] }],
  ['snapshot-save', { tag: 't', vmstate: 'a', devices: ['a', 'b'] }],
  ['snapshot-save', { tag: 'u', vmstate: 'a', devices: ['a'] }],
  ['snapshot-load', { tag: 'nope', vmstate: 'a', devices: ['a', 'b'] }],
  ['snapshot-load', { tag: 'u', vmstate: 'a', devices: ['a', 'b'] }],
  ['snapshot-load', { tag: 't', vmstate: 'nope', devices: ['a', 'b'] }],
  ['snapshot-load', { tag: 't', vmstate: 'a', devices: ['a', 'r'] }],
  ['snapshot-load', { tag: 't', vmstate: 'a', devices: ['a', 'b'] }],
  ['block-dirty-bitmap-add', { node: 'b', name: 'bitmap' }],
  ['snapshot-load', { tag: 't', vmstate: 'a', devices: ['a', 'b'] }],
  ['block-dirty-bitmap-remove', { node: 'b', name: 'bitmap' }],
  ['snapshot-delete', { tag: 'nope', devices: ['a', 'b'] }],
  ['snapshot-delete', { tag: 't', devices: [] }],
  ['snapshot-delete', { tag: 't', devices: ['nope'] }],
  ['snapshot-delete', { tag: 't', devices: ['a', 'r'] }],
  ['snapshot-delete', { tag: 'u', devices: ['a', 'b'] }],
  ['snapshot-delete', { tag: 't', devices: ['b'] }],
  ['snapshot-delete', { tag: 't', devices: ['b', 'a'] }],
  ['snapshot-save', { tag: 't', vmstate: 'b', devices: ['b', 'a'] }],
];
const REFUSALS: readonly (readonly [string, Args])[] = [
  ['snapshot-save', {}], ['snapshot-save', { 'job-id': '1', tag: 't', vmstate: 'a', devices: ['a'] }], ['snapshot-save', { 'job-id': 'j', tag: 't', devices: ['a'] }],
  ['snapshot-load', { 'job-id': 'j', tag: 't', vmstate: 'a' }], ['snapshot-delete', { 'job-id': 'j', tag: 't', devices: 'a' }],
  ['snapshot-delete', { 'job-id': 'j', tag: 't', vmstate: 'a', devices: ['a'] }],
];

const reply = (qmp: QmpClient, command: string, args?: Args): Promise<unknown> => qmp.execute(command, args).catch((error: unknown) => String(error).replace(/^.*?: /, ''));

async function job(qmp: QmpClient, command: string, args: Args): Promise<unknown[]> {
  const seen: unknown[] = [];
  const stop = qmp.subscribe(({ name, data }) => { if (name === 'JOB_STATUS_CHANGE') seen.push(data['status']); });
  const over = qmp.waitEvent('JOB_STATUS_CHANGE', ({ status }) => status === 'concluded', { timeoutMs: 60_000 });
  const started = await qmp.execute(command, { 'job-id': 'job', ...args });
  await over;
  const listed = await qmp.execute('query-jobs');
  await qmp.execute('job-dismiss', { id: 'job' });
  stop();
  return [started, listed, ...seen];
}

async function play(qmp: QmpClient): Promise<unknown[]> {
  const told: unknown[] = [];
  for (const [command, args] of REFUSALS) told.push(await reply(qmp, command, args));
  for (const [command, args] of SCRIPT) told.push([command, args, await (command.startsWith('snapshot-') ? job(qmp, command, args) : reply(qmp, command, args))]);
  return told;
}

const NODES = [
  ['a', 'qcow2'], ['b', 'qcow2'], ['r', 'raw'], ['o', 'qcow2', 'read-only=on'],
] as const;

async function makeDisks(folder: string): Promise<void> {
  for (const [name, format] of NODES) await runOk('qemu-img', ['create', '-q', '-f', format, tmp(`${folder}-${name}`), '1M']);
}

async function withDaemon<T>(section: (qmp: QmpClient, daemon: StorageDaemon) => Promise<T>, folder = 'ours'): Promise<T> {
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' } });
  await daemon.chardevs.add('m', { kind: 'socket', address: { type: 'unix', path: tmp('monitor') }, server: true, wait: false, reconnectSeconds: 0 });
  daemon.addMonitor('m');
  const qmp = await QmpClient.connect(tmp('monitor'));
  try {
    for (const [name, driver] of NODES) {
      await qmp.execute('blockdev-add', { driver, 'node-name': name, 'read-only': name === 'o', file: { driver: 'file', filename: tmp(`${folder}-${name}`) } });
    }
    return await section(qmp, daemon);
  } finally {
    qmp.close();
    await daemon.close();
  }
}

peers('qemu-system-x86_64')('as a machine', () => {
  test('what is refused, told and done', async () => {
    await makeDisks('theirs');
    await makeDisks('ours');
    const machine = await startMachine(tmp('qmp'), NODES.flatMap(([name, driver, ...more]) => ['-blockdev', [`driver=${driver},node-name=${name},file.driver=file,file.filename=${tmp(`theirs-${name}`)}`, ...more].join(',')]));
    const theirs = await QmpClient.connect(tmp('qmp'));
    try {
      const wanted = await play(theirs);
      expect(await withDaemon(play)).toEqual(wanted);
    } finally {
      theirs.close();
      await machine.end();
    }
    for (const name of ['a', 'b']) expect(await snapshotNames(tmp(`ours-${name}`))).toEqual(await snapshotNames(tmp(`theirs-${name}`)));
    for (const name of ['a', 'b']) await runOk('qemu-img', ['check', '-q', tmp(`ours-${name}`)]);
  });
});

peers('qemu-img', 'qemu-io')('the disks', () => {
  const pattern = (name: string, value: number): Promise<string> => runOk('qemu-io', ['-f', 'qcow2', '-c', `write -P ${value} 0 64k`, tmp(`ours-${name}`)]);
  const holds = (name: string, value: number): Promise<string> => runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', `read -P ${value} 0 64k`, tmp(`ours-${name}`)]);

  test("go back to snapshots of qemu-img's, and to ours with qemu-img", async () => {
    await makeDisks('ours');
    for (const name of ['a', 'b']) {
      await pattern(name, 1);
      await runOk('qemu-img', ['snapshot', '-c', 'theirs', tmp(`ours-${name}`)]);
      await pattern(name, 2);
    }
    await withDaemon(async (qmp) => {
      await job(qmp, 'snapshot-save', { tag: 'ours', vmstate: 'a', devices: ['a', 'b'] });
      const seen = await job(qmp, 'snapshot-load', { tag: 'theirs', vmstate: 'a', devices: ['a', 'b'] });
      expect(seen).toContain('pending');
    });
    for (const name of ['a', 'b']) {
      await leaksAtMost(tmp(`ours-${name}`));
      expect(await holds(name, 1)).not.toContain('failed');
      expect(await snapshotNames(tmp(`ours-${name}`))).toEqual(['theirs', 'ours']);
      await runOk('qemu-img', ['snapshot', '-a', 'ours', tmp(`ours-${name}`)]);
      expect(await holds(name, 2)).not.toContain('failed');
    }
  });

  test.each([['save', 'snapshots'], ['load', 'active tables']])('all stay as they were where one of them fails in %s', async (verb, _what) => {
    await makeDisks('ours');
    for (const name of ['a', 'b']) {
      await pattern(name, 1);
      if (verb === 'load') await runOk('qemu-img', ['snapshot', '-c', 't', tmp(`ours-${name}`)]);
      await pattern(name, 2);
    }
    await withDaemon(async (qmp, { graph }) => {
      const { snapshots } = graph.get('a').driver;
      const failing = async (): Promise<never> => { throw new Error('no room on earth'); };
      // the node that holds the RAM state is saved last and loaded first
      Object.assign(verb === 'save' ? snapshots! : graph.get('b').driver.snapshots!, verb === 'save' ? { create: failing } : { apply: failing });
      const seen = await job(qmp, `snapshot-${verb}`, { tag: 't', vmstate: 'a', devices: ['a', 'b'] });
      expect(JSON.stringify(seen)).toContain('no room on earth');
    });
    for (const name of ['a', 'b']) {
      await leaksAtMost(tmp(`ours-${name}`));
      expect(await holds(name, 2)).not.toContain('failed');
      expect(await snapshotNames(tmp(`ours-${name}`))).toEqual(verb === 'load' ? ['t'] : []);
    }
  });

  test('keep their content while a job works on one, and while another builds on one', async () => {
    await makeDisks('ours');
    await makeImage(tmp('top'), '1M', '-b', tmp('ours-b'), '-F', 'qcow2');
    await withDaemon(async (qmp) => {
      await job(qmp, 'snapshot-save', { tag: 't', vmstate: 'a', devices: ['a', 'b'] });
      await qmp.execute('blockdev-mirror', { 'job-id': 'mirror', device: 'a', target: 'r', sync: 'full' });
      await qmp.waitEvent('BLOCK_JOB_READY', () => true, { timeoutMs: 30_000 });
      const load = { tag: 't', vmstate: 'a', devices: ['a', 'b'] };
      const events = await job(qmp, 'snapshot-load', load);
      expect(JSON.stringify(events)).toContain("Node 'a' is busy: block device is in use by block job: mirror");
      await qmp.execute('block-job-cancel', { device: 'mirror' });
      await qmp.waitEvent('JOB_STATUS_CHANGE', ({ id, status }) => id === 'mirror' && status === 'null');
      await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file: { driver: 'file', filename: tmp('top') }, backing: 'b' });
      expect(JSON.stringify(await job(qmp, 'snapshot-load', load))).toContain("Node 'b' is busy: node is used as backing hd of 'top'");
    });
  });
});
