import { deleteSnapshot } from '../../src/index.js';
import { ALSO, BACKING, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';

export const command = defineCommand({
  description: 'Deletes a snapshot and gives its clusters back. All images must have it before the first one changes.',
  positionals: { image: { help: 'the qcow2 image' }, tag: { help: 'name (or id) of the snapshot' } },
  options: { backing: BACKING, also: ALSO, ...TRACING },
  examples: [
    { line: 'quiesce snapshot delete disk.qcow2 before-upgrade', does: 'one image' },
    { line: 'quiesce snapshot delete a.qcow2 t --also b.qcow2', does: 'the disks of one machine together' },
  ],
  run: async ({ image, tag, backing, also }, { signal, warn }) => {
    await deleteSnapshot({ image, tag, backing, also, signal, onWarning: warn });
  },
});
