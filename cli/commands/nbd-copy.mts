import { rmSync } from 'node:fs';
import { copyImage, formatSize, isFileName, type CopyImageOptions } from '../../src/index.js';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_OUTPUT, TRACING } from '../common-options.mjs';
import { defineCommand } from '../command.mjs';
import { formatByName, refuseSame, statOf } from '../same-image.mjs';

const MAX_CHUNK = 32 * 1024 ** 2;

export const command = defineCommand({
  description: 'Copies the disk that one image or NBD export holds into another. Zeros and holes stay holes where the target can have them. A target ' +
    'file is made anew: what it held is gone at once, and of a copy that does not end nothing is left, or an empty file where there was one. ' +
    'A device, an NBD export, or with --existing a file is written as it is, and refused where it is too small.',
  positionals: {
    source: { help: 'an image or an NBD URI' },
    target: { help: 'an image or an NBD URI' },
  },
  options: {
    'source-format': { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the source has this format' },
    'target-format': { type: 'string', alias: 'O', choices: FORMAT_CHOICES, help: 'format of the target; by default qcow2 for a name that ends so, else raw' },
    existing: { type: 'boolean', alias: 'n', help: 'write into the target file that is there' },
    connections: { type: 'number', value: 'N', min: 1, max: 16, default: 4, help: 'connections to each NBD server that allows several' },
    requests: { type: 'number', value: 'N', min: 1, max: 256, help: 'requests in flight at once; by default 16, and no more than 16 MiB; between Unix sockets 8' },
    'request-size': { type: 'size', min: 4096, max: MAX_CHUNK, help: 'bytes of one request, like 256K; each of them has a buffer of this size. Default 1M' },
    cache: { type: 'string', choices: CACHE_CHOICES, default: 'writeback', help: "QEMU's cache mode of images" },
    backing: BACKING,
    json: JSON_OUTPUT,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce nbd copy nbd://storage/disk disk.qcow2', does: 'fetch a disk' },
    { line: "quiesce nbd copy disk.qcow2 'nbd+unix:///disk?socket=/run/nbd.sock'", does: 'write a disk into an export' },
    { line: 'quiesce nbd copy disk.qcow2 disk.raw --json', does: 'convert an image; a summary for programs' },
  ],
  run: async ({ source, target, sourceFormat, existing, connections, requests, requestSize, cache, backing, json, ...args }, { signal, progress, out }) => {
    refuseSame(source, target);
    const found = statOf(target);
    const targetFormat = args.targetFormat ?? formatByName(target);
    // what a device holds cannot be made anew, only written
    const createTarget = !existing && (targetFormat !== 'raw' || found === undefined || found.isFile());
    const bars = await progress();
    let started = false;
    const onProgress: CopyImageOptions['onProgress'] = (done, total) => {
      if (!started) bars.start(total, 'copying');
      started = true;
      bars.update(done);
    };
    const startedMs = Date.now();
    try {
      const copied = await copyImage(source, target, {
        sourceFormat, targetFormat, createTarget, connections, requests, chunkBytes: requestSize, cache, backing, signal, onProgress,
      });
      const seconds = (Date.now() - startedMs) / 1000;
      if (json) out.json({ source, target, ...copied, seconds });
      else out.line(`copied ${formatSize(copied.bytes)}: ${formatSize(copied.copied)} of data, ${formatSize(copied.zeroed)} of zeros`);
    } catch (error) {
      if (createTarget && found === undefined && isFileName(target)) rmSync(target, { force: true });
      throw error;
    }
  },
});
