/** QMP: jobs, and those that make images. */
import { BlockError } from '../base/errors.js';
import { Permission } from '../block/permissions.js';
import type { Preallocation } from '../block/driver.js';
import { createQcow2 } from '../format/qcow2/create.js';
import { preallocateQcow2 } from '../format/qcow2/qcow2.js';
import { openBlockdev } from '../image/blockdev.js';
import type { OptionTree } from '../image/options.js';
import type { BlockNode } from '../block/node.js';
import { openFileDriver } from '../protocol/file.js';
import { QmpCommandError } from '../qmp/command-error.js';
import type { CommandTable } from '../qmp/server.js';
import type { Json, JsonDict } from '../qobject/value.js';
import type { Job } from '../job/job.js';
import { mirrorOf } from '../job/mirror/mirror.js';
import type { BlockJob, BlockJobs } from '../job/block-job.js';
import { checkQcow2Create, checkQcow2Size } from './create-checks.js';
import type { StorageDaemon } from './daemon.js';
import { couldNotCreate } from './overlay-file.js';

export function jobCommands(daemon: StorageDaemon): CommandTable {
  const { jobs } = daemon;
  const verb = (act: (job: Job) => void | Promise<void>) => ({ id }: JsonDict): void | Promise<void> => act(jobs.get(id as string));
  return {
    'query-jobs': () => jobs.list().map(jobInfo),
    'job-pause': verb(whatFollows((job) => job.pause())),
    'job-resume': verb(resume),
    'job-cancel': verb((job) => cancel(job, true, daemon.blockJobs.find(job.id))),
    'job-complete': verb(whatFollows((job) => job.complete())),
    'job-finalize': verb((job) => finalize(job)),
    'job-dismiss': verb((job) => job.dismiss()),
    ...blockJobCommands(daemon.blockJobs),
    'blockdev-create': (args) => startCreate(daemon, args),
    'x-blockdev-amend': (args) => startAmend(daemon, args),
  };
}

/** What the job does about it at once is told before the reply, as where it is a coroutine that is entered. */
function whatFollows(act: (job: Job) => void): (job: Job) => Promise<void> {
  return async (job) => {
    act(job);
    await settled();
  };
}

/** What stopped a job that goes piece by piece, and still does, is met before the reply; the operations of a mirror run beside it. */
async function resume(job: Job): Promise<void> {
  job.resume();
  // one whose work is over by then is told of afterwards
  for (let left = job.type === 'mirror' ? 1 : TURNS_OF_A_PIECE; left > 0 && !job.ran; left--) await settled();
}

/** A piece that fails at once has failed, and the job has paused again. */
const TURNS_OF_A_PIECE = 4;

/** Whatever needs nothing from outside has been done. */
export async function settled(): Promise<void> {
  await new Promise((resolve) => { setImmediate(resolve); });
}

/** As with QEMU a job whose work is done has ended when the command has, and so has one that stands still with nothing under way. */
async function cancel(job: Job, force: boolean, blockJob: BlockJob | undefined): Promise<void> {
  const byPiece = (job.type === 'commit' || job.type === 'stream') && blockJob !== undefined && mirrorOf(blockJob) === undefined;
  const pausedByClient = job.userPaused && blockJob?.ioStatus === 'ok';
  const standsStill = job.ran || (job.idle && (!job.paused || pausedByClient)) || (byPiece && !job.busy && !job.isReady);
  job.cancel(force);
  await (standsStill && job.cancelled ? job.groupEnded : settled());
}

async function finalize(job: Job): Promise<void> {
  job.finalize();
  await job.groupEnded;
}

function jobInfo(job: Job): JsonDict {
  const { id, type, status, currentProgress, totalProgress, error } = job.info();
  return {
    id, type, status, 'current-progress': currentProgress, 'total-progress': totalProgress, ...(error === null ? {} : { error }),
  };
}

/** The verbs of block jobs: those that work on a node. Jobs of other kinds are none of them. */
function blockJobCommands(blockJobs: BlockJobs): CommandTable {
  const find = (id: Json | undefined): BlockJob => {
    const found = blockJobs.find(id as string);
    if (found === undefined) throw new QmpCommandError('DeviceNotActive', `Block job '${id as string}' not found`);
    return found;
  };
  return {
    'query-block-jobs': () => blockJobs.list().map(blockJobInfo),
    'block-job-set-speed': ({ device, speed }) => find(device).setSpeed(Number(speed)),
    'block-job-cancel': ({ device, force = false }) => {
      const blockJob = find(device);
      const { job } = blockJob;
      if (job.userPaused && force !== true) throw new BlockError('INVALID_ARGUMENT', `The block job for device '${device as string}' is currently paused`);
      return cancel(job, force === true, blockJob);
    },
    'block-job-pause': ({ device }) => whatFollows((job) => job.pause())(find(device).job),
    'block-job-resume': ({ device }) => resume(find(device).job),
    'block-job-complete': ({ device }) => whatFollows((job) => job.complete())(find(device).job),
    'block-job-dismiss': ({ id }) => find(id).job.dismiss(),
    'block-job-finalize': ({ id }) => finalize(find(id).job),
  };
}

function blockJobInfo(blockJob: BlockJob): JsonDict {
  const { ioStatus, autoFinalize, autoDismiss, error, ...same } = blockJob.info();
  return {
    ...same, 'io-status': ioStatus, 'auto-finalize': autoFinalize, 'auto-dismiss': autoDismiss, ...(error === null ? {} : { error }),
    ...convergenceInfo(blockJob), ...mirrorInfo(blockJob),
  };
}

/** Of a mirror in copy mode `auto`. */
function convergenceInfo(blockJob: BlockJob): JsonDict {
  const now = mirrorOf(blockJob)?.convergence ?? null;
  if (now === null) return {};
  const { phase, copyMode, dirty, copyRate, dirtyRate, guestRate, etaMs, deadlineMs, converges } = now;
  return { 'x-quiesce-convergence': {
    phase, 'copy-mode': copyMode, dirty, 'copy-rate': copyRate, 'dirty-rate': dirtyRate, ...guestRate === null ? {} : { 'guest-rate': guestRate },
    ...etaMs === null ? {} : { eta: etaMs }, ...deadlineMs === null ? {} : { deadline: deadlineMs }, ...converges === null ? {} : { converges },
  } };
}

/** Of a mirror in copy mode `auto` what guests wait for their writes (milliseconds), of one that compares both disks what is left of that (bytes). */
function mirrorInfo(blockJob: BlockJob): JsonDict {
  const mirror = mirrorOf(blockJob);
  if (mirror === undefined) return {};
  const { unverified, guestP99Ms } = mirror.figures();
  return {
    ...mirror.convergence === null || guestP99Ms === null ? {} : { 'x-quiesce-guest-p99': Math.ceil(guestP99Ms) },
    ...unverified === null ? {} : { 'x-quiesce-unverified': unverified },
  };
}

/** Images that QEMU makes and this engine does not. */
const OTHERS_CREATE: readonly string[] = ['gluster', 'luks', 'nfs', 'parallels', 'qcow', 'qed', 'rbd', 'ssh', 'vdi', 'vhdx', 'vmdk', 'vpc'];

/** What is refused without I/O is told before the command returns, as by QEMU; all else afterwards. */
async function startCreate(daemon: StorageDaemon, args: JsonDict): Promise<void> {
  const options = args['options'] as JsonDict;
  const driver = options['driver'] as string;
  if (OTHERS_CREATE.includes(driver)) throw new BlockError('NOT_SUPPORTED', `Block driver '${driver}' not found or not supported`);
  if (driver !== 'file' && driver !== 'qcow2') throw new BlockError('NOT_SUPPORTED', 'Driver does not support blockdev-create');
  let accept: () => void = () => undefined;
  const accepted = new Promise<void>((resolve) => { accept = resolve; });
  const returned = async (): Promise<void> => {
    accept();
    await new Promise((resolve) => { setImmediate(resolve); });
  };
  const job = daemon.jobs.create({
    id: args['job-id'] as string,
    type: 'create',
    autoDismiss: false,
    run: async (progress) => {
      progress.progress(0, 1);
      try {
        await (driver === 'file' ? createFile(options, returned) : createQcow2Image(daemon, options, returned));
      } finally {
        progress.progress(1, 1);
      }
    },
  });
  job.start();
  await Promise.race([accepted, job.ended]);
}

async function createFile(options: JsonDict, returned: () => Promise<void>): Promise<void> {
  const filename = options['filename'] as string;
  const driver = await openFileDriver(filename, { create: true }).catch((error: unknown) => {
    throw couldNotCreate(filename, error);
  });
  try {
    await returned();
    const size = Number(options['size']);
    if (!Number.isSafeInteger(size)) throw new BlockError('INVALID_ARGUMENT', `Could not resize file: ${size < 2 ** 63 ? 'File too large' : 'Invalid argument'}`);
    await driver.resize?.(size, options['preallocation'] as Preallocation | undefined);
  } finally {
    await driver.close();
  }
}

async function createQcow2Image(daemon: StorageDaemon, options: JsonDict, returned: () => Promise<void>): Promise<void> {
  const { graph } = daemon;
  const reference = options['file']!;
  if (typeof reference !== 'string') await returned();
  const { node, temporary } = typeof reference === 'string' ? { node: graph.lookUp(reference), temporary: false } : await openDefined(daemon, reference as OptionTree);
  try {
    const create = qcow2Options(options);
    checkQcow2Create(options);
    const door = await graph.attach(node, { used: Permission.WRITE | Permission.RESIZE, shared: Permission.ALL });
    try {
      await returned();
      checkQcow2Size(options);
      await createQcow2(node, create);
      await preallocateQcow2(node, create.preallocation);
    } finally {
      await graph.detach(door);
    }
  } finally {
    if (temporary) await graph.remove(node.nodeName);
  }
}

/** A node that is opened for the while. */
async function openDefined({ graph, blockdevContext }: StorageDaemon, definition: OptionTree): Promise<{ node: BlockNode; temporary: boolean }> {
  const temporary = definition['node-name'] === undefined;
  const node = await openBlockdev(graph, temporary ? { ...definition, 'node-name': 'quiesce-create-file' } : definition, blockdevContext);
  return { node, temporary: true };
}

function qcow2Options(options: JsonDict): Parameters<typeof createQcow2>[1] {
  const version = options['version'];
  return {
    size: Number(options['size']),
    ...(version === undefined ? {} : { version: version === 'v2' ? 2 : 3 }),
    ...pick(options, 'backing-file', 'backingFile'),
    ...pick(options, 'backing-fmt', 'backingFormat'),
    ...pick(options, 'cluster-size', 'clusterSize'),
    ...pick(options, 'preallocation', 'preallocation'),
    ...pick(options, 'lazy-refcounts', 'lazyRefcounts'),
    ...pick(options, 'refcount-bits', 'refcountBits'),
  };
}

function pick(options: JsonDict, from: string, to: string): Record<string, Json> {
  const value = options[from];
  return value === undefined ? {} : { [to]: value };
}

/** Nothing of what may be amended (encryption) is there to amend. */
function startAmend(daemon: StorageDaemon, args: JsonDict): void {
  const name = args['node-name'] as string;
  const node = daemon.graph.find(name);
  if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='' nor node-name='${name}'`);
  const options = args['options'] as JsonDict;
  if (options['driver'] !== node.driver.formatName) throw new BlockError('INVALID_ARGUMENT', "x-blockdev-amend doesn't support changing the block driver");
  if (options['driver'] !== 'qcow2') throw new BlockError('NOT_SUPPORTED', 'Driver does not support x-blockdev-amend');
  daemon.jobs.create({
    id: args['job-id'] as string,
    type: 'amend',
    autoDismiss: false,
    run: async (job) => {
      job.progress(1, 1);
      if (options['encrypt'] !== undefined) throw new BlockError('NOT_SUPPORTED', 'Encryption options cannot be amended here');
    },
  }).start();
}
