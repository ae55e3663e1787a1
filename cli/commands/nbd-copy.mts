import { copyImage, formatSize } from '../../src/index.js';
import { BACKING, CACHE, FORMAT_CHOICES, JSON_OUTPUT } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';

export const command = defineCommand({
  description: 'Copies one disk into another; each is a file or an NBD export. What reads as zeros is not sent where the target can be told so. ' +
    'A file is made anew, as large as the source; an export is written as it is. All of it is on stable storage when the command returns.',
  positionals: {
    source: { help: 'an image, or nbd://…, nbd+unix://…, nbds://…' },
    target: { help: 'the same' },
  },
  options: {
    'source-format': { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'default: probed; raw for an export' },
    'target-format': { type: 'string', alias: 'O', choices: FORMAT_CHOICES, default: 'raw', help: 'of the target' },
    existing: { type: 'boolean', alias: 'n', help: 'write into the file that is there' },
    connections: { type: 'number', min: 1, max: 16, default: 4, help: 'to each server that allows several' },
    requests: { type: 'number', min: 1, max: 256, default: 16, help: 'reads and writes in flight' },
    cache: CACHE,
    backing: BACKING,
    json: JSON_OUTPUT,
  },
  examples: [
    { line: 'quiesce nbd copy nbd://localhost/disk disk.img', does: 'an export into a file' },
    { line: "quiesce nbd copy disk.qcow2 'nbd+unix:///disk?socket=/run/nbd.sock'", does: 'the disk of an image into an export' },
  ],
  run: async ({ source, target, sourceFormat, targetFormat, existing, connections, requests, cache, backing, json }, { signal, out, progress }) => {
    const bar = await progress();
    let started = false;
    const copied = await copyImage(source, target, {
      sourceFormat, targetFormat, createTarget: !existing, connections, requests, cache, backing, signal,
      onProgress: (done, total) => {
        if (!started) bar.start(total, 'copying');
        started = true;
        bar.update(done);
      },
    });
    if (json) out.json(copied);
    else out.line(`copied ${formatSize(copied.bytes)}: ${formatSize(copied.copied)} of data, ${formatSize(copied.zeroed)} of zeros`);
  },
});
