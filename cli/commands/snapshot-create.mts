import { resolve } from 'node:path';
import { createFromQemu, createOnDaemon, createSnapshot, formatSize, type CreateSnapshotRequest, type DaemonSnapshot, snapshotInfo } from '../../src/index.js';
import { ALSO, BACKING, CACHE, JSON_OUTPUT, TRACING } from '../common-options.mjs';
import { defineCommand, UsageError } from '../command.mjs';
import type { Output } from '../output.mjs';
import { progressOf } from '../progress-of.mjs';

export const command = defineCommand({
  description: 'Takes an internal snapshot of a qcow2 image, with the RAM state of its machine if one is given. ' +
    'The snapshot appears when all of it is on stable storage, or not at all. A QEMU migration stream must be whole: end of file alone is not success.',
  positionals: {
    image: { help: 'the qcow2 image; it holds the RAM state. With --daemon: the name of a node' },
    tag: { help: 'name of the snapshot' },
  },
  options: {
    'vm-state': {
      type: 'string', value: 'SRC',
      help: 'RAM state: a file, - (standard input), unix:PATH (listens; QEMU: migrate unix:PATH), or qmp:PATH (drives a running QEMU)',
    },
    daemon: { type: 'string', value: 'SOCK', help: 'QMP socket of the storage daemon that holds the image open: a snapshot of a live disk' },
    replace: { type: 'boolean', help: 'an older snapshot of that name goes, once the new one is durable' },
    'chunk-size': { type: 'size', min: 1, max: 64 * 1024 * 1024, help: 'bytes of one write (default: 1M, or one cluster where that is larger)' },
    depth: { type: 'number', min: 1, max: 64, default: 8, help: 'writes in flight' },
    cache: CACHE,
    'vm-clock': { type: 'string', value: 'NS', help: 'guest run time to record, in nanoseconds' },
    icount: { type: 'string', value: 'N', help: 'instruction count to record' },
    backing: BACKING,
    json: JSON_OUTPUT,
    also: ALSO,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce snapshot create disk.qcow2 before-upgrade', does: 'the disk alone' },
    { line: 'quiesce snapshot create disk.qcow2 paused --vm-state unix:/run/ram.sock', does: 'then, in QEMU: stop; migrate unix:/run/ram.sock' },
    { line: 'quiesce snapshot create disk.qcow2 running --vm-state qmp:/run/vm.qmp', does: 'a running machine: stop, migrate, snapshot all disks, cont' },
    { line: 'quiesce snapshot create --daemon /run/quiesce.qmp disk0 t --vm-state qmp:/run/vm.qmp', does: 'a running machine on an export of ours' },
    { line: 'quiesce snapshot create --daemon /run/quiesce.qmp disk0 t --also disk1', does: 'two live disks at the same moment, both or none' },
    { line: 'quiesce snapshot create a.qcow2 t --vm-state ram.bin --also b.qcow2', does: 'two disks, all or none' },
  ],
  run: async ({ image, tag, vmState, daemon, replace, chunkSize, depth, cache, vmClock, icount, backing, json, also }, { signal, out, warn, hint, progress }) => {
    const qmp = vmState?.startsWith('qmp:') === true ? vmState.slice('qmp:'.length) : null;
    if (qmp === '') throw new UsageError("--vm-state: 'qmp:' names no socket, expected qmp:PATH");
    const common = {
      tag, vmState, replace, chunkSize, depth, signal, vmClockNs: u64('--vm-clock', vmClock), icount: u64('--icount', icount), onProgress: progressOf(await progress()),
      onReady: (source: string) => { if (source.startsWith('unix:')) hint(`waiting for the RAM state; in QEMU: stop, then migrate unix:${resolve(source.slice('unix:'.length))}`); },
    };
    if (daemon !== undefined) {
      if (cache !== undefined) throw new UsageError('--cache: has no effect together with --daemon, which has the disk open already');
      tellLive([image, ...also], await createOnDaemon({ ...common, daemon, nodeName: image, also }), json, out);
      return;
    }
    const request: CreateSnapshotRequest = { ...common, image, cache, backing, also, onWarning: warn };
    const created = await (qmp === null ? createSnapshot(request) : createFromQemu(qmp, request));
    if (json) {
      out.json({ 'vm-state-size': created.vmStateSize, images: created.images.map(({ filename, snapshot }) => ({ filename, ...snapshotInfo(snapshot) })) });
      return;
    }
    for (const { filename, snapshot } of created.images) {
      const state = snapshot.vmStateSize > 0 ? `, ${formatSize(snapshot.vmStateSize)} of RAM state` : '';
      out.line(`snapshot '${tag}' of '${filename}' is durable (id ${snapshot.id}${state})`);
    }
  },
});

function tellLive(nodes: readonly string[], { snapshot, also, vmStateSize, pauseMs, stoppedMs }: DaemonSnapshot, json: boolean | undefined, out: Output): void {
  const ms = (value: number): number => Math.round(value * 100) / 100;
  const made = [snapshot, ...also];
  if (json === true) {
    out.json({
      'vm-state-size': vmStateSize, 'pause-ms': ms(pauseMs), ...stoppedMs === null ? {} : { 'stopped-ms': ms(stoppedMs) },
      images: nodes.map((node, index) => ({ node, ...made[index] })),
    });
    return;
  }
  for (const [index, node] of nodes.entries()) {
    const state = index === 0 && vmStateSize > 0 ? `, ${formatSize(vmStateSize)} of RAM state` : '';
    const stopped = stoppedMs === null ? '' : `, the machine stood still for ${ms(stoppedMs)} ms`;
    const waited = index === 0 ? `; writes waited ${ms(pauseMs)} ms${stopped}` : '';
    out.line(`snapshot '${String(made[index]!['name'])}' of node '${node}' is durable (id ${String(made[index]!['id'])}${state})${waited}`);
  }
}

function u64(what: string, text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,20}$/.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value >= 2n ** 64n) throw new UsageError(`${what}: expected a whole number below 2^64, got '${text}'`);
  return value;
}
