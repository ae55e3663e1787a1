import { backupImage, runDaemonJob, type BackupImageOptions } from '../../src/index.js';
import { defineCommand, UsageError, type CommandContext } from '../command.mjs';
import { BACKING, CACHE_CHOICES, FORMAT_CHOICES, JSON_OUTPUT } from '../common-options.mjs';

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
    json: JSON_OUTPUT,
  },
  examples: [
    { line: 'quiesce backup disk.qcow2 monday.qcow2', does: 'all of a disk' },
    { line: 'quiesce backup disk.qcow2 tuesday.qcow2 --bitmap daily --previous monday.qcow2', does: 'what was written since' },
    { line: 'quiesce backup --daemon /run/qmp.sock disk copy --speed 50M', does: "a daemon's disk, while it is written" },
  ],
  run: async (args, { signal, progress, out }) => {
    const bars = await progress();
    let total: number | null = null;
    const onProgress = (done: number, all: number): void => {
      if (total !== all) bars.start(all, 'copying');
      total = all;
      bars.update(done);
    };
    const startedMs = performance.now();
    await (args.daemon === undefined ? onFiles(args, signal, onProgress) : onDaemon(args.daemon, args, signal, onProgress));
    bars.stop();
    const { source, target, bitmap = null } = args;
    if (args.json) out.json({ source, target, bitmap, processed: total ?? 0, seconds: Math.round(performance.now() - startedMs) / 1000 });
    else out.line(`backed up '${source}' into '${target}'`);
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

type OnProgress = NonNullable<BackupImageOptions['onProgress']>;

async function onFiles({ source, target, sourceFormat, ...options }: Args, signal: CommandContext['signal'], onProgress: OnProgress): Promise<void> {
  await backupImage(source, target, { ...options, format: sourceFormat, signal, onProgress });
}

async function onDaemon(daemon: string, args: Args, signal: CommandContext['signal'], onProgress: OnProgress): Promise<void> {
  const { source, target, bitmap, speed, sync = bitmap === undefined ? 'full' : 'incremental' } = args;
  if ((args.previous ?? args.sourceFormat ?? args.targetFormat ?? args.cache) !== undefined || args.existing === true) {
    throw new UsageError('--previous, --existing, --source-format, --target-format and --cache are for files: a daemon has its nodes open');
  }
  const bitmapMode = args.bitmapMode ?? (bitmap === undefined ? undefined : 'on-success');
  await runDaemonJob({
    daemon, command: 'blockdev-backup', signal, onProgress,
    args: {
      device: source, target, sync, ...(bitmap === undefined ? {} : { bitmap }), ...(bitmapMode === undefined ? {} : { 'bitmap-mode': bitmapMode }),
      ...(speed === undefined ? {} : { speed }),
    },
  });
}
