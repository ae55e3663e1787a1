/** Every command: one line of help, and where it is. A command's module loads only when it runs. */
import type { Command } from './command.mjs';

export interface CommandEntry {
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
  /**
   * The small parser reads its command line, and yargs, which takes longer to load than all else, is not: for what
   * scripts call hundreds of times, and for what a stopped machine waits for.
   */
  readonly quick?: boolean;
}

/** By the words that call it, in the order of the help. */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  demo: { summary: 'the main job on an example: a disk, a RAM state, a snapshot, and back', load: () => import('./commands/demo.mjs') },
  'snapshot create': { summary: 'take a snapshot, with RAM state', quick: true, load: () => import('./commands/snapshot-create.mjs') },
  'snapshot load': { summary: 'revert the disk and stream the RAM state out', quick: true, load: () => import('./commands/snapshot-load.mjs') },
  'snapshot extract': { summary: 'stream the RAM state out, image untouched', load: () => import('./commands/snapshot-extract.mjs') },
  'snapshot revert': { summary: 'revert the disk', load: () => import('./commands/snapshot-revert.mjs') },
  'snapshot list': { summary: 'list snapshots', load: () => import('./commands/snapshot-list.mjs') },
  'snapshot delete': { summary: 'delete a snapshot', load: () => import('./commands/snapshot-delete.mjs') },
  'image create': { summary: 'make an empty image', quick: true, load: () => import('./commands/image-create.mjs') },
  'image info': { summary: 'show what an image is', quick: true, load: () => import('./commands/image-info.mjs') },
  'image resize': { summary: 'make the disk of an image larger or smaller', quick: true, load: () => import('./commands/image-resize.mjs') },
  'image bitmap': { summary: 'change the persistent dirty bitmaps of an image', quick: true, load: () => import('./commands/image-bitmap.mjs') },
  'image check': { summary: 'check the consistency of an image', quick: true, load: () => import('./commands/image-check.mjs') },
  backup: { summary: 'copy a disk as it is now, all of it or what was written since', quick: true, load: () => import('./commands/backup.mjs') },
  mirror: { summary: 'copy a disk that may be in use, to the last write', quick: true, load: () => import('./commands/mirror.mjs') },
  commit: { summary: 'merge an overlay into the image below it', quick: true, load: () => import('./commands/commit.mjs') },
  stream: { summary: 'make an overlay stand without the images below it', quick: true, load: () => import('./commands/stream.mjs') },
  'nbd info': { summary: 'show what an NBD server offers', quick: true, load: () => import('./commands/nbd-info.mjs') },
  'nbd copy': { summary: 'copy a disk between files and exports', quick: true, load: () => import('./commands/nbd-copy.mjs') },
  'nbd serve': { summary: 'serve an image over NBD', quick: true, load: () => import('./commands/nbd-serve.mjs') },
  'job list': { summary: 'list the jobs of a daemon or machine', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).list }) },
  'job show': { summary: 'show one', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).show }) },
  'job watch': { summary: 'follow one until it ends', quick: true, load: () => import('./commands/job-watch.mjs') },
  'job pause': { summary: 'pause one', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).pauseJob }) },
  'job resume': { summary: 'let a paused one go on', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).resume }) },
  'job complete': { summary: 'complete one that is ready', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).complete }) },
  'job finalize': { summary: 'let one that waits for it take effect', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).finalize }) },
  'job cancel': { summary: 'end one', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).cancel }) },
  'job set-speed': { summary: 'limit how fast one copies', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).setSpeed }) },
  'job change': { summary: 'change how a mirror copies', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).change }) },
  'job dismiss': { summary: 'forget one that has ended', quick: true, load: async () => ({ command: (await import('./commands/job.mjs')).dismiss }) },
  'trace report': { summary: 'tell what is wrong with the I/O of a trace, and its numbers', quick: true, load: () => import('./commands/trace-report.mjs') },
  'trace serve': { summary: 'show where every I/O of a trace went, in the browser', quick: true, load: () => import('./commands/trace-serve.mjs') },
  'trace view': { summary: 'show where every I/O of a trace went, in the terminal', quick: true, load: () => import('./commands/trace-view.mjs') },
  'trace convert': { summary: 'make one file of a trace, CSV, or a log for fio', quick: true, load: () => import('./commands/trace-convert.mjs') },
  'trace parse': { summary: "print a trace as blkparse's text", quick: true, load: () => import('./commands/trace-parse.mjs') },
  daemon: { summary: 'hold many disks, export them, obey QMP', quick: true, load: () => import('./commands/daemon.mjs') },
  completion: { summary: 'print a script that completes commands in your shell', load: () => import('./commands/completion.mjs') },
};
