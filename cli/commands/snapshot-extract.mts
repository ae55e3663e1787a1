import { extractSnapshot, formatSize } from '../../src/index.js';
import { BACKING, CACHE, SHARE, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';
import { progressOf } from '../progress-of.mjs';
import { READ_AHEAD, READ_DEPTH } from './snapshot-load.mjs';

export const command = defineCommand({
  description: 'Streams the RAM state of a snapshot out. The image is opened read-only and stays as it is.',
  positionals: { image: { help: 'the qcow2 image' }, tag: { help: 'name (or id) of the snapshot' } },
  options: {
    'vm-state': { type: 'string', required: true, value: 'DST', help: 'where it goes: a file, - (standard output), a FIFO, a device, or unix:PATH' },
    'read-ahead': READ_AHEAD,
    depth: READ_DEPTH,
    cache: CACHE,
    'force-share': SHARE,
    backing: BACKING,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce snapshot extract disk.qcow2 paused --vm-state ram.bin', does: 'into a file' },
    { line: 'quiesce snapshot extract -U disk.qcow2 paused --vm-state - | zstd > ram.zst', does: 'while a machine uses the image' },
  ],
  run: async ({ image, tag, vmState, readAhead, depth, cache, forceShare, backing }, { signal, progress, out }) => {
    const snapshot = await extractSnapshot({ image, tag, vmState, readAhead, depth, cache, forceShare, backing, signal, onProgress: progressOf(await progress()) });
    if (vmState !== '-') out.line(`${formatSize(snapshot.vmStateSize)} of RAM state of '${snapshot.name}' went to ${vmState}`);
  },
});
