import { listSnapshots, snapshotInfo } from '../../src/index.js';
import { JSON_OUTPUT, SHARE, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';
import { SNAPSHOT_COLUMNS } from '../snapshot-text.mjs';

export const command = defineCommand({
  description: 'Lists the internal snapshots of an image.',
  positionals: { image: { help: 'the qcow2 image' } },
  options: { 'force-share': SHARE, json: JSON_OUTPUT, ...TRACING },
  examples: [
    { line: 'quiesce snapshot list disk.qcow2', does: 'a table' },
    { line: 'quiesce snapshot list -U --json disk.qcow2', does: 'for programs, while a machine runs on the image' },
  ],
  run: async ({ image, forceShare, json }, { out }) => {
    const snapshots = await listSnapshots(image, { forceShare });
    if (json) out.json(snapshots.map(snapshotInfo));
    else if (snapshots.length > 0) out.table(snapshots, SNAPSHOT_COLUMNS);
  },
});
