import { streamImage } from '../../src/index.js';
import { CHAIN_JOB_OPTIONS, runChainJob } from '../chain-job.mjs';
import { defineCommand } from '../command.mjs';

export const command = defineCommand({
  description: 'Copies what the images below have into an image, so that it needs them no longer: it stands alone afterwards, or with --base on that image. ' +
    'However it ends, the image shows the same disk as before. A running machine must not use it; what a storage daemon has open is streamed ' +
    'with --daemon, while its clients write.',
  positionals: { image: { help: 'the image; with --daemon a node name' } },
  options: {
    base: { type: 'string', alias: 'b', value: 'IMAGE', help: 'the image of the chain that stays below; by default none' },
    ...CHAIN_JOB_OPTIONS,
  },
  examples: [
    { line: 'quiesce stream overlay.qcow2', does: 'make an overlay stand alone' },
    { line: 'quiesce stream overlay.qcow2 --base base.qcow2', does: 'take over what lies between the overlay and its base' },
    { line: 'quiesce stream --daemon /run/qmp.sock disk --speed 50M', does: "a daemon's disk, at 50 MiB a second" },
  ],
  run: (args, context) => runChainJob({
    label: 'streaming', onFiles: streamImage, command: 'block-stream',
    tell: ({ image, base }) => `streamed into '${image}', which ${base === null ? 'stands alone now' : `lies on '${base}' now`}`,
  }, args, context),
});
