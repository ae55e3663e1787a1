import { revertSnapshot } from '../../src/index.js';
import { ALSO, BACKING, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';

export const command = defineCommand({
  description: 'Makes the disks what they were at a snapshot. Its RAM state is not touched; changes since the last snapshot are lost. Of several disks ' +
    'all go back or none, also where the run is killed: the next snapshot command on them takes back what was half done.',
  positionals: { image: { help: 'the qcow2 image' }, tag: { help: 'name (or id) of the snapshot' } },
  options: { backing: BACKING, also: ALSO, ...TRACING },
  examples: [
    { line: 'quiesce snapshot revert disk.qcow2 before-upgrade', does: 'take the disk back' },
    { line: 'quiesce snapshot revert a.qcow2 t --also b.qcow2', does: 'the disks of one machine together' },
  ],
  run: async ({ image, tag, backing, also }, { signal, warn }) => {
    await revertSnapshot({ image, tag, backing, also, signal, onWarning: warn });
  },
});
