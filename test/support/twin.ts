/**
 * A flat, sparse raw file that holds what a disk must hold: every step done on an image is done on its twin, and then
 * both QEMU and this engine must read the image as the twin. Steps run through either of them.
 */
import { closeSync, copyFileSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { RequestFlag, type BlockNode, type Random } from '../../src/index.js';
import { randomBytes } from './random-bytes.js';
import { runOk } from './run.js';

const ZEROS = Buffer.alloc(1024 * 1024);

export interface Step {
  readonly op: 'write' | 'zeroes' | 'zeroes-unmap' | 'discard';
  readonly offset: number;
  readonly bytes: number;
  readonly seed: number;
}

export class Twin {
  readonly path: string;
  readonly size: number;

  constructor(path: string, size: number) {
    this.path = path;
    this.size = size;
    const fd = openSync(path, 'w');
    ftruncateSync(fd, size);
    closeSync(fd);
  }

  /** Another file with the same content. */
  copy(path: string): Twin {
    const copied = new Twin(path, this.size);
    copyFileSync(this.path, path);
    return copied;
  }

  write(offset: number, data: Uint8Array): void {
    this.#with((fd) => {
      for (let done = 0; done < data.byteLength;) done += writeSync(fd, data, done, data.byteLength - done, offset + done);
    });
  }

  zero(offset: number, bytes: number): void {
    for (let done = 0; done < bytes; done += ZEROS.byteLength) {
      this.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.byteLength, bytes - done)));
    }
  }

  read(offset: number, bytes: number): Buffer {
    const data = Buffer.alloc(bytes);
    this.#with((fd) => {
      for (let done = 0; done < bytes;) {
        const now = readSync(fd, data, done, bytes - done, offset + done);
        if (now === 0) break;
        done += now;
      }
    });
    return data;
  }

  /** What the step does to a disk: discarded clusters read as zeros where the image can say so. */
  apply({ op, offset, bytes, seed }: Step, clusterSize: number, discardZeroes = true): void {
    if (op === 'write') return this.write(offset, randomBytes(bytes, seed));
    if (op !== 'discard') return this.zero(offset, bytes);
    if (!discardZeroes) return;
    const start = Math.ceil(offset / clusterSize) * clusterSize;
    const end = offset + bytes === this.size ? this.size : Math.floor((offset + bytes) / clusterSize) * clusterSize;
    if (end > start) this.zero(start, end - start);
  }

  #with(work: (fd: number) => void): void {
    const fd = openSync(this.path, 'r+');
    try {
      work(fd);
    } finally {
      closeSync(fd);
    }
  }
}

/** Random steps; half of the offsets and lengths are whole clusters. */
export function randomSteps(random: Random, size: number, clusterSize: number, count: number): Step[] {
  return Array.from({ length: count }, () => {
    const unit = random.chance(0.5) ? clusterSize : random.pick([1, 512]);
    const offset = Math.floor(random.below(size) / unit) * unit;
    const longest = Math.min(size - offset, random.pick([unit, 3 * clusterSize, Math.floor(size / 8)]));
    const bytes = Math.min(size - offset, Math.ceil((random.below(longest) + 1) / unit) * unit);
    const op = random.pick(['write', 'write', 'write', 'zeroes', 'zeroes-unmap', 'discard'] as const);
    return { op, offset, bytes, seed: random.next32() };
  });
}

export async function stepsByUs(node: BlockNode, steps: readonly Step[]): Promise<void> {
  for (const { op, offset, bytes, seed } of steps) {
    if (op === 'write') await node.write(offset, randomBytes(bytes, seed));
    else if (op === 'discard') await node.discard(offset, bytes);
    else await node.writeZeroes(offset, bytes, op === 'zeroes' ? 0 : RequestFlag.MAY_UNMAP);
  }
}

/** All steps in one run of qemu-io. */
export async function stepsByQemu(path: string, steps: readonly Step[], options: readonly string[] = []): Promise<void> {
  const commands = steps.map(({ op, offset, bytes, seed }, index) => {
    if (op === 'discard') return `discard -q ${offset} ${bytes}`;
    if (op !== 'write') return `write -q ${op === 'zeroes' ? '-z' : '-z -u'} ${offset} ${bytes}`;
    const pattern = join(dirname(path), `pattern-${index}`);
    writeFileSync(pattern, randomBytes(bytes, seed));
    return `write -q -s ${pattern} ${offset} ${bytes}`;
  });
  const output = await runOk('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...options, ...commands.flatMap((command) => ['-c', command]), path]);
  if (output !== '') throw new Error(`qemu-io on ${path}: ${output}`);
}
