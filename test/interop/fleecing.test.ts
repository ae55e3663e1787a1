/** A disk read as it was, by qemu-img over NBD, while a guest writes it: through a backup with sync=none, and through snapshot-access. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import {
  addBlockdev, addExport, makeRequest, Random, startBackup, startNbdServer, StorageDaemon, type BackupSync, type BlockBackend, type BlockJob, type JsonDict,
} from '../../src/index.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { appears } from '../support/listening.js';

const tmp = useTmp();
const SIZE = 16 * 1024 * 1024;

class Lab {
  readonly daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' } });
  #guest: Promise<void> | null = null;
  #stopped = false;

  async add(options: JsonDict): Promise<void> {
    await addBlockdev(this.daemon, options);
  }

  backup(jobId: string, target: string, sync: BackupSync, speed = 0): Promise<BlockJob> {
    const { graph, blockJobs } = this.daemon;
    return startBackup(graph, blockJobs, { jobId, source: graph.get('disk'), target: graph.get(target), sync, speed });
  }

  async addQcow2(name: string, more: JsonDict = {}): Promise<void> {
    await this.add({ driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: tmp(`${name}.qcow2`) }, ...more });
  }

  async export(node: string): Promise<string> {
    await startNbdServer(this.daemon, {}, { type: 'unix', path: tmp(`${node}.nbd`) });
    await addExport(this.daemon, { type: 'nbd', id: node, 'node-name': node });
    return `nbd+unix:///${node}?socket=${tmp(`${node}.nbd`)}`;
  }

  /** Writes, zeroes and discards at random places until the lab ends. */
  startGuest(door: BlockBackend): void {
    const random = new Random(7);
    this.#guest = (async () => {
      while (!this.#stopped) {
        const bytes = 512 * (random.below(400) + 1);
        const offset = 512 * random.below((SIZE - bytes) / 512);
        const op = random.pick(['write', 'write', 'write-zeroes', 'discard'] as const);
        await door.submit(makeRequest(op, offset, bytes, op === 'write' ? Buffer.alloc(bytes, random.below(255) + 1) : null));
        await new Promise((resolve) => { setImmediate(resolve); });
      }
    })();
  }

  async end(): Promise<void> {
    this.#stopped = true;
    await this.#guest;
    await this.daemon.close();
  }
}

async function makeDisks(): Promise<Buffer> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), String(SIZE)]);
  await runOk('qemu-io', ['-f', 'qcow2', ...[0, 2, 3, 7, 11, 15].flatMap((at) => ['-c', `write -q -P ${at + 1} ${at}M 700k`]), tmp('disk.qcow2')]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('keep.qcow2'), String(SIZE)]);
  await runOk('qemu-img', ['convert', '-O', 'raw', tmp('disk.qcow2'), tmp('before.raw')]);
  return readFileSync(tmp('before.raw'));
}

async function expectSeen(uri: string, before: Buffer): Promise<void> {
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, tmp('seen.raw')]);
  expect(readFileSync(tmp('seen.raw')).equals(before)).toBe(true);
}

const GUEST = { used: 3, shared: 15 - 8 };

peers('qemu-img', 'qemu-io', 'nbdkit')('fleecing', () => {
  test('a backup with sync=none into an overlay of the disk itself', async () => {
    const before = await makeDisks();
    const lab = new Lab();
    try {
      await lab.addQcow2('disk');
      const door = await lab.daemon.graph.attach(lab.daemon.graph.get('disk'), GUEST);
      await lab.addQcow2('keep', { backing: 'disk' });
      await lab.backup('j', 'keep', 'none');
      lab.startGuest(door);
      const uri = await lab.export('keep');
      for (let round = 0; round < 4; round++) await expectSeen(uri, before);
    } finally {
      await lab.end();
    }
  });

  test('snapshot-access over a copy-before-write filter', async () => {
    const before = await makeDisks();
    const lab = new Lab();
    try {
      await lab.addQcow2('disk');
      await lab.addQcow2('keep');
      await lab.add({ driver: 'copy-before-write', 'node-name': 'filter', file: 'disk', target: 'keep' });
      await lab.add({ driver: 'snapshot-access', 'node-name': 'old', file: 'filter' });
      lab.startGuest(await lab.daemon.graph.attach(lab.daemon.graph.get('filter'), GUEST));
      const uri = await lab.export('old');
      for (let round = 0; round < 4; round++) await expectSeen(uri, before);
    } finally {
      await lab.end();
    }
  });

  test.each(['full', 'top'] as const)('a backup with sync=%s of an overlay that a guest writes', async (sync) => {
    await makeDisks();
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('disk.qcow2'), '-F', 'qcow2', tmp('top.qcow2')]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 77 2500k 300k', '-c', 'write -q -z 7M 100k', '-c', 'write -q -P 78 9M 200', tmp('top.qcow2')]);
    await runOk('qemu-img', ['convert', '-O', 'raw', tmp('top.qcow2'), tmp('before.raw')]);
    const lab = new Lab();
    try {
      await lab.addQcow2('disk', { 'node-name': 'disk', file: { driver: 'file', filename: tmp('top.qcow2') } });
      await lab.addQcow2('keep');
      const door = await lab.daemon.graph.attach(lab.daemon.graph.get('disk'), GUEST);
      const { job } = await lab.backup('j', 'keep', sync, SIZE);
      lab.startGuest(door);
      await job.ended;
      expect(job.error).toBeNull();
    } finally {
      await lab.end();
    }
    if (sync === 'top') await runOk('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', tmp('disk.qcow2'), '-F', 'qcow2', tmp('keep.qcow2')]);
    expect(await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', tmp('keep.qcow2'), tmp('before.raw')])).toContain('identical');
    expect(await runOk('qemu-img', ['check', tmp('keep.qcow2')])).toContain('No errors');
  });

  test('a backup to a server that does not answer is cancelled long before it does, and its guests go on', async () => {
    await makeDisks();
    const server = start('nbdkit', ['-f', '-U', tmp('slow.nbd'), '--filter=delay', 'memory', `size=${SIZE}`, 'wdelay=90']);
    const lab = new Lab();
    try {
      await appears(tmp('slow.nbd'));
      await lab.addQcow2('disk');
      await lab.add({ driver: 'nbd', 'node-name': 'far', server: { type: 'unix', path: tmp('slow.nbd') } });
      const door = await lab.daemon.graph.attach(lab.daemon.graph.get('disk'), GUEST);
      const { job } = await lab.backup('j', 'far', 'full');
      const writing = door.submit(makeRequest('write', 0, 512, Buffer.alloc(512, 9)));
      await new Promise((resolve) => { setTimeout(resolve, 200); });
      const begun = performance.now();
      job.cancel();
      await job.ended;
      await writing;
      expect(performance.now() - begun).toBeLessThan(10_000);
      await expect(lab.backup('k', 'far', 'full')).rejects.toThrow("Node 'far' is busy");
    } finally {
      await kill(server);
      await lab.end();
    }
  });
});
