/** Exports of types that are not here: what QEMU would find wrong comes first, in its words and order; then a sentence of our own. */
import { existsSync, statSync } from 'node:fs';
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError, wrapHostError } from '../base/errors.js';
import { tryListening } from '../nbd/listen.js';
import type { JsonDict } from '../qobject/value.js';
import { listenAddress, socketAddress } from './address.js';

const BLOCK_SIZES = { min: 512, max: 2 * 1024 * 1024 } as const;
const QUEUE_SIZES = { min: 4, max: 1024 } as const;
const VDUSE_CONTROL = '/dev/vduse/control';

/** `options`: BlockExportOptions, checked by the schema, of another type than `nbd`. Always throws. `say`: a line that QEMU prints besides. */
export async function refuseOtherType(options: JsonDict, say: (line: string) => void): Promise<never> {
  const type = options['type'] as string;
  if (type === 'fuse') checkMountpoint(options['mountpoint'] as string);
  else if (type === 'vhost-user-blk') await checkVhostUser(options);
  else if (type === 'vduse-blk') checkVduse(options, say);
  throw new BlockError('NOT_SUPPORTED', `exports of type '${type}' are not available`);
}

function checkMountpoint(path: string): void {
  let regular = false;
  try {
    regular = statSync(path).isFile();
  } catch (error) {
    throw wrapHostError(error, `Failed to stat '${path}'`);
  }
  if (!regular) throw invalid(`'${path}' is not a regular file`);
}

async function checkVhostUser(options: JsonDict): Promise<void> {
  checkBlockSize(options);
  checkQueues(options);
  const address = options['addr'] as JsonDict;
  if (address['type'] !== 'unix' && address['type'] !== 'fd') throw invalid("Only socket address types 'unix' and 'fd' are supported");
  await tryListening(listenAddress(socketAddress(address)));
}

function checkVduse(options: JsonDict, say: (line: string) => void): void {
  checkQueues(options);
  const queue = Number(options['queue-size'] ?? QUEUE_SIZES.max);
  if (!isPowerOfTwo(queue) || queue < QUEUE_SIZES.min || queue > QUEUE_SIZES.max) throw invalid('queue-size is invalid');
  checkBlockSize(options);
  if (existsSync(VDUSE_CONTROL)) return;
  say(`Failed to open ${VDUSE_CONTROL}: No such file or directory`);
  throw new BlockError('NOT_FOUND', 'failed to create vduse device');
}

function checkBlockSize({ id, 'logical-block-size': given }: JsonDict): void {
  const size = Number(given ?? BLOCK_SIZES.min);
  const { min, max } = BLOCK_SIZES;
  if (size < min || size > max) throw invalid(`Property ${id as string}.logical-block-size doesn't take value ${size} (minimum: ${min}, maximum: ${max})`);
  if (!isPowerOfTwo(size)) throw invalid(`Property ${id as string}.logical-block-size doesn't take value '${size}', it's not a power of 2`);
}

function checkQueues(options: JsonDict): void {
  if (options['num-queues'] !== undefined && Number(options['num-queues']) === 0) throw invalid('num-queues must be greater than 0');
}

function invalid(why: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', why);
}
