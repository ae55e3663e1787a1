/** The captures in fixtures/trace, as readers. */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';
import { openTrace, type TraceReader } from '../../src/index.js';
import { repository } from './run.js';

/** What is wrong with each: names of rules. Of those of healthy loads: nothing. */
export const CAPTURES: Readonly<Record<string, readonly string[]>> = {
  'qemu-savevm': ['rmw', 'misaligned', 'depth-1', 'flush-storm'],
  'qemuio-rmw': ['rmw', 'misaligned', 'depth-1'],
  'synth-mixed': [],
  'randread-32': [],
  'randrw-16': [],
  'seqwrite-8': [],
  'seqread-8': [],
  fourjobs: [],
  discard: [],
  'probe-1': [],
  trickle: [],
  'buffered-ext4': [],
  'buffered-xfs': [],
  'sqlite-batch': [],
  'sqlite-commits': ['flush-storm'],
  'fsync-each': ['flush-storm', 'depth-1'],
  osync: ['flush-storm', 'depth-1'],
  'seqread-1': ['depth-1'],
  thinking: ['slow-submitter'],
  unaligned: ['misaligned'],
  backwards: ['random'],
  saturated: ['saturated'],
  'reads-and-writes': ['head-of-line'],
  'hot-block': ['depth-1', 'flush-storm', 'metadata', 'misaligned'],
};

const WHOLE = ['qemu-savevm', 'qemuio-rmw', 'synth-mixed'];

export function openCapture(name: string): Promise<TraceReader> {
  const path = join(repository, 'fixtures', 'trace', name);
  return openTrace(WHOLE.includes(name) ? path : createReadStream(`${path}.bin.gz`).pipe(createGunzip()));
}
