import { backupImage, runDaemonJob, type BackupImageOptions } from '../../src/index.js';
import { defineCommand } from '../command.mjs';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_EVENTS, TRACING } from '../common-options.mjs';
import { FOR_FILES, refuseGiven } from '../given.mjs';
import { JobTelling } from '../job-text.mjs';
import { hintExisting } from '../same-image.mjs';

export const command = defineCommand({
  description: 'Copies the disk of an image, as it is now, into a new file. With --bitmap only what was written since the last backup that took this bitmap ' +
    'is copied, and the bitmap starts anew once the copy is safe; a backup that fails or is interrupted changes nothing. A running machine must not use ' +
    'the image; what a storage daemon has open is backed up with --daemon, as it is when the command begins, while its clients write.',
  positionals: {
    source: { help: 'the image; with --daemon a node name' },
    target: { help: 'the file to make, or an NBD export; with --daemon a node of the same size' },
  },
  options: {
    sync: { type: 'string', choices: ['full', 'top', 'bitmap', 'incremental'], help: 'what is copied: all, what the first image of a chain holds, or what a bitmap says; by default full, or incremental with --bitmap' },
    bitmap: { type: 'string', value: 'NAME', help: 'a persistent bitmap of the image (image bitmap add)' },
    'bitmap-mode': { type: 'string', choices: ['on-success', 'never', 'always'], help: 'when what was copied leaves the bitmap; by default on-success' },
    previous: { type: 'string', alias: 'b', value: 'IMAGE', help: 'the backup before: the new file holds the difference, on top of it' },
    existing: { type: 'boolean', alias: 'n', help: 'write into the target that is there' },
    'source-format': { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    'target-format': { type: 'string', alias: 'O', choices: FORMAT_CHOICES, help: 'format of the target; by default qcow2' },
    daemon: { type: 'string', value: 'SOCKET', help: "source and target are nodes of the storage daemon that listens there with QMP, ours or QEMU's" },
    speed: { type: 'size', value: 'RATE', help: 'bytes per second at most, like 50M' },
    cache: { type: 'string', choices: CACHE_CHOICES, help: "QEMU's cache mode of the images; by default writeback" },
    backing: BACKING,
    json: JSON_EVENTS,
    ...TRACING,
  },
  examples: [
    { line: 'quiesce backup disk.qcow2 monday.qcow2', does: 'all of a disk' },
    { line: 'quiesce backup disk.qcow2 tuesday.qcow2 --bitmap daily --previous monday.qcow2', does: 'what was written since' },
    { line: 'quiesce backup --daemon /run/qmp.sock disk copy --speed 50M', does: "a daemon's disk, while it is written" },
  ],
  run: async (args, context) => {
    const { source, target, bitmap = null, daemon } = args;
    if (daemon !== undefined) refuseGiven(context, ['previous', 'existing', 'source-format', 'target-format', 'cache', 'backing'], FOR_FILES);
    const telling = new JobTelling('copying', args.json, context.out, await context.progress());
    const told = { signal: context.signal, onProgress: telling.onProgress, onEvent: telling.onEvent };
    await (daemon === undefined ? onFiles(args, told) : onDaemon(daemon, args, told));
    telling.end({ source, target, bitmap, processed: telling.total ?? 0 }, `backed up '${source}' into '${target}'`);
  },
});

interface Args {
  readonly source: string;
  readonly target: string;
  readonly sync: BackupImageOptions['sync'];
  readonly bitmap: string | undefined;
  readonly bitmapMode: BackupImageOptions['bitmapMode'];
  readonly previous: string | undefined;
  readonly existing: boolean | undefined;
  readonly sourceFormat: 'qcow2' | 'raw' | undefined;
  readonly targetFormat: 'qcow2' | 'raw' | undefined;
  readonly speed: number | undefined;
  readonly cache: BackupImageOptions['cache'];
  readonly backing: BackupImageOptions['backing'];
}

type Told = Pick<BackupImageOptions, 'signal' | 'onProgress' | 'onEvent'>;

async function onFiles({ source, target, existing, ...options }: Args, told: Told): Promise<void> {
  await backupImage(source, target, { ...options, createTarget: existing !== true, ...told }).catch(hintExisting);
}

async function onDaemon(daemon: string, args: Args, told: Told): Promise<void> {
  const { source, target, bitmap, speed, sync = bitmap === undefined ? 'full' : 'incremental' } = args;
  const bitmapMode = args.bitmapMode ?? (bitmap === undefined ? undefined : 'on-success');
  await runDaemonJob({
    daemon, command: 'blockdev-backup', ...told,
    args: {
      device: source, target, sync, ...(bitmap === undefined ? {} : { bitmap }), ...(bitmapMode === undefined ? {} : { 'bitmap-mode': bitmapMode }),
      ...(speed === undefined ? {} : { speed }),
    },
  });
}
