import { formatSize, loadSnapshot } from '../../src/index.js';
import { ALSO, BACKING, CACHE, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';
import { progressOf } from '../progress-of.mjs';

export const READ_AHEAD = { type: 'size', min: 0, default: 10 * 1024 * 1024, help: 'bytes read before the receiver asks for them' } as const;

export const READ_DEPTH = { type: 'number', min: 1, max: 64, default: 1, help: 'reads in flight: more than 1 helps where one does not keep the disk busy' } as const;

export const command = defineCommand({
  description: 'Reverts the disks to a snapshot and streams its RAM state out. The receiver is connected and the state is checked before ' +
    'anything changes, and the images are closed before the last byte goes out, so that the machine can open them. Several disks ' +
    'go back all or none, also where the run is killed: the next snapshot command on them takes back what was half done.',
  positionals: { image: { help: 'the qcow2 image that holds the RAM state' }, tag: { help: 'name (or id) of the snapshot' } },
  options: {
    'vm-state': {
      type: 'string', required: true, value: 'DST',
      help: 'where the RAM state goes: a file, - (standard output), a FIFO, a device, or unix:PATH (QEMU: -incoming unix:PATH)',
    },
    'read-ahead': READ_AHEAD,
    depth: READ_DEPTH,
    cache: CACHE,
    backing: BACKING,
    also: ALSO,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce snapshot load disk.qcow2 paused --vm-state unix:/run/in.sock', does: 'into a machine started with -incoming unix:/run/in.sock' },
    { line: 'quiesce snapshot load disk.qcow2 paused --vm-state ram.bin', does: 'into a file' },
  ],
  run: async ({ image, tag, vmState, readAhead, depth, cache, backing, also }, { signal, warn, progress, out }) => {
    const snapshot = await loadSnapshot({ image, tag, vmState, readAhead, depth, cache, backing, also, signal, onProgress: progressOf(await progress()), onWarning: warn });
    if (vmState !== '-') out.line(`'${image}' is at snapshot '${snapshot.name}'; ${formatSize(snapshot.vmStateSize)} of RAM state went to ${vmState}`);
  },
});
