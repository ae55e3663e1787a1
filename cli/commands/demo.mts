import { createHash } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlockError, createImage, createSnapshot, formatSize, loadSnapshot, openImage, Random, wrapHostError } from '../../src/index.js';
import { defineCommand, type CommandContext } from '../command.mjs';
import { progressOf } from '../progress-of.mjs';

const MIB = 1024 * 1024;
const DISK_BYTES = 256 * MIB;
const SEED = 20_260_824;

export const command = defineCommand({
  description: 'Shows the main job on an embedded example: makes an image, writes a disk, streams a generated RAM state into a snapshot, ' +
    'changes the disk, loads the snapshot back, and verifies both by hash. Nothing else is needed, and nothing is left behind.',
  positionals: {},
  options: {
    'ram-size': { type: 'size', min: MIB, max: 64 * 1024 * MIB, default: 512 * MIB, help: 'bytes of RAM state to generate' },
    dir: { type: 'string', help: 'where to work (default: the directory for temporary files)' },
    keep: { type: 'boolean', help: 'keep the files' },
  },
  examples: [
    { line: 'quiesce demo', does: 'half a gigabyte of RAM' },
    { line: 'quiesce demo --ram-size 4G --dir /mnt/fast', does: 'more, on another disk' },
  ],
  run: async ({ ramSize, dir, keep }, context) => {
    const parent = dir ?? tmpdir();
    const work = await mkdtemp(join(parent, 'quiesce-demo-')).catch((error: unknown) => { throw wrapHostError(error, `could not make a directory in '${parent}'`); });
    try {
      await demonstrate(work, ramSize, context);
    } finally {
      if (keep) context.out.line(`the files are in ${work}`);
      else await rm(work, { recursive: true, force: true });
    }
  },
});

async function demonstrate(work: string, ramSize: number, context: CommandContext): Promise<void> {
  const { out, signal } = context;
  const image = join(work, 'disk.qcow2');
  const ram = join(work, 'ram.bin');
  const back = join(work, 'ram-loaded.bin');
  const progress = await context.progress();
  const random = new Random(SEED);

  await createImage(image, { format: 'qcow2', size: 10 * 1024 * MIB });
  const diskBefore = await timed(out, `wrote a disk of ${formatSize(DISK_BYTES)} into a new qcow2 image`, DISK_BYTES,
    () => writeDisk(image, random, context));
  const ramBefore = await timed(out, `generated a RAM state of ${formatSize(ramSize)}`, ramSize, () => generateRam(ram, ramSize, random, context));

  await timed(out, "snapshot create: RAM state and disk are in snapshot 'demo', on stable storage", ramSize,
    () => createSnapshot({ image, tag: 'demo', vmState: ram, signal, onProgress: progressOf(progress) }));
  progress.stop();
  await timed(out, 'changed every megabyte of the disk', DISK_BYTES, () => writeDisk(image, random, context));
  await timed(out, 'snapshot load: disk reverted, RAM state streamed back', ramSize,
    () => loadSnapshot({ image, tag: 'demo', vmState: back, signal, onProgress: progressOf(progress) }));
  progress.stop();

  verify(out, 'disk', diskBefore, await hashDisk(image));
  verify(out, 'RAM ', ramBefore, await hashFile(back));
}

async function timed<T>(out: CommandContext['out'], what: string, bytes: number, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  out.line(`${what}  (${seconds.toFixed(2)} s, ${formatSize(Math.round(bytes / seconds))}/s)`);
  return result;
}

async function writeDisk(image: string, random: Random, context: CommandContext): Promise<string> {
  const node = await openImage(image);
  const progress = await context.progress();
  progress.start(DISK_BYTES, 'writing the disk');
  const data = new Uint8Array(MIB);
  const hash = createHash('sha256');
  random.fill(data);
  try {
    for (let offset = 0; offset < DISK_BYTES; offset += MIB) {
      context.signal.throwIfAborted();
      stir(data, random);
      hash.update(data);
      await node.write(offset, data);
      progress.update(offset + MIB);
    }
    await node.flush();
  } finally {
    progress.stop();
    await node.close();
  }
  return hash.digest('hex');
}

/** New content for each chunk, without the time that filling it all anew would take. */
function stir(data: Uint8Array, random: Random): void {
  for (let at = 0; at < data.byteLength; at += 4096) data[at] = random.next32();
}

async function generateRam(path: string, bytes: number, random: Random, context: CommandContext): Promise<string> {
  const file = await open(path, 'w');
  const progress = await context.progress();
  progress.start(bytes, 'generating a RAM state');
  const hash = createHash('sha256');
  const data = new Uint8Array(MIB);
  random.fill(data);
  try {
    for (let done = 0; done < bytes;) {
      context.signal.throwIfAborted();
      stir(data, random);
      const part = data.subarray(0, Math.min(MIB, bytes - done));
      hash.update(part);
      await file.writeFile(part);
      done += part.byteLength;
      progress.update(done);
    }
  } finally {
    progress.stop();
    await file.close();
  }
  return hash.digest('hex');
}

async function hashDisk(image: string): Promise<string> {
  const node = await openImage(image, { readOnly: true });
  try {
    const hash = createHash('sha256');
    const data = new Uint8Array(MIB);
    for (let offset = 0; offset < DISK_BYTES; offset += MIB) {
      await node.read(offset, data);
      hash.update(data);
    }
    return hash.digest('hex');
  } finally {
    await node.close();
  }
}

async function hashFile(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const hash = createHash('sha256');
    for await (const chunk of file.createReadStream({ highWaterMark: MIB, autoClose: false })) hash.update(chunk as Uint8Array);
    return hash.digest('hex');
  } finally {
    await file.close();
  }
}

function verify(out: CommandContext['out'], what: string, before: string, after: string): void {
  if (before !== after) throw new BlockError('CORRUPT', `the ${what.trim()} came back different: sha256 ${after}, expected ${before}`);
  out.line(`${what} verified: sha256 ${after}`);
}
