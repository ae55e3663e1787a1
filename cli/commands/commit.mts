import { commitImage } from '../../src/index.js';
import { CHAIN_JOB_OPTIONS, runChainJob } from '../chain-job.mjs';
import { defineCommand } from '../command.mjs';

export const command = defineCommand({
  description: 'Copies what an overlay has into the image below it, or with --base into one further down, which grows where it is smaller. ' +
    'The overlay stays as it is, and shows the same disk as the base afterwards: it may be deleted. Images between it and the base are not valid any more. ' +
    'A running machine must not use any of the images; what a storage daemon has open is committed with --daemon, while its clients write, ' +
    'and they use the base afterwards.',
  positionals: { image: { help: 'the overlay; with --daemon a node name' } },
  options: {
    base: { type: 'string', alias: 'b', value: 'IMAGE', help: 'commit into this image of the chain, and all that is above it; by default the one below the overlay, with --daemon the last one' },
    ...CHAIN_JOB_OPTIONS,
  },
  examples: [
    { line: 'quiesce commit overlay.qcow2', does: 'merge an overlay into its backing file' },
    { line: 'quiesce commit overlay.qcow2 --base base.qcow2 --json', does: 'merge a whole chain; a summary for programs' },
    { line: 'quiesce commit --daemon /run/qmp.sock disk', does: "merge a daemon's disk into its last image, under its clients" },
  ],
  run: (args, context) => runChainJob({
    label: 'committing', onFiles: commitImage, command: 'block-commit',
    tell: ({ image, base }) => `committed '${image}'${base === null ? '' : ` into '${base}'`}`,
  }, args, context),
});
