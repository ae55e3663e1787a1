/** Errors of disks below jobs, injected on both sides by blkdebug: each kind of job, each side, each policy and errno, as scripts for both daemons. */
import type { OnError } from '../../src/index.js';
import type { ScriptCell } from './job-compare.js';
import { closeAll, matrixNode, QUERIES, restored, startOf, type JobKind } from './job-matrix.js';
import type { JobStep } from './job-script.js';
import { runOk } from './run.js';

export const ERROR_POLICIES: readonly OnError[] = ['report', 'ignore', 'enospc', 'stop', 'auto'];
export type FailingRequest = 'read' | 'write';
/**
 * Where a job meets errors. QEMU's backup does not flush its target at the end, and what its mirror's target may have lost in a
 * flush that failed is not copied again; ours does both, and what comes of it is tried in unit tests.
 */
export const FAILING: readonly (readonly [kind: JobKind, request: FailingRequest])[] = [
  ['mirror', 'read'], ['mirror', 'write'], ['active commit', 'read'], ['active commit', 'write'],
  ['commit', 'read'], ['commit', 'write'], ['stream', 'read'], ['stream', 'write'], ['backup', 'read'], ['backup', 'write'],
];
const EIO = 5;
const ENOSPC = 28;
const MiB = 2 ** 20;

/** Guest offset → host offset of an image of the scripts. */
export type HostOffset = (image: 'mid' | 'base', guestOffset: number) => number;

export async function readHostOffsets(folder: string): Promise<HostOffset> {
  const found = new Map<string, readonly { readonly start: number; readonly length: number; readonly offset?: number; readonly depth: number }[]>();
  for (const image of ['mid', 'base']) {
    const options = `json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"${folder}/${image}.origin"}}`;
    found.set(image, JSON.parse(await runOk('qemu-img', ['map', '--output=json', options])) as []);
  }
  return (image, at) => {
    const extent = found.get(image)!.find(({ start, length }) => at >= start && at < start + length);
    if (extent?.offset === undefined) throw new Error(`'${image}' has no data at ${at}`);
    return extent.offset + at - extent.start;
  };
}

interface Fault {
  readonly kind: JobKind;
  readonly request: FailingRequest;
  readonly errno: number;
}

/** The nodes of the scripts, one of which fails once. */
function openFailing(folder: string, { kind, request, errno }: Fault, host: HostOffset): readonly JobStep[] {
  const once = { errno, once: true };
  const above = (name: string, sector?: number): JobStep => ['blockdev-add', {
    driver: 'blkdebug', 'node-name': name, 'inject-error': [{ event: 'none', iotype: request, ...once, ...sector === undefined ? {} : { sector } }],
    image: { driver: 'qcow2', 'node-name': `${name}-image`, file: { driver: 'file', filename: `${folder}/${name}.qcow2` }, ...name === 'top' ? { backing: 'mid' } : {} },
  }];
  const below = (name: string, rule: object): Readonly<Record<string, unknown>> => ({
    file: { driver: 'blkdebug', 'inject-error': [{ ...rule, ...once }], image: { driver: 'file', filename: `${folder}/${name}.qcow2` } },
  });
  const chain = kind === 'commit' || kind === 'stream' || kind === 'active commit';
  // the last piece there is: what else is in flight has ended
  const inMid = chain && request === 'read' ? below('mid', { event: 'read_aio', sector: host('mid', 1.5 * MiB) / 512 }) : {};
  const inBase = (kind === 'commit' || kind === 'active commit') && request === 'write' ? below('base', { event: 'write_aio', sector: host('base', MiB / 2) / 512 }) : {};
  const inTop = kind === 'stream' && request === 'write' ? below('top', { event: 'write_aio' }) : {};
  const aboveTop = !chain && request === 'read';
  const aboveDst = !chain && request !== 'read';
  // a mirror has several granules in flight: what fails is the last one
  const sector = (kind === 'mirror' ? 2 * MiB - 65_536 : MiB) / 512;
  return [
    restored(folder), matrixNode(folder, 'base', { 'read-only': true, ...inBase }), matrixNode(folder, 'mid', { 'read-only': true, backing: 'base', ...inMid }),
    aboveTop ? above('top', sector) : matrixNode(folder, 'top', { backing: 'mid', ...inTop }), aboveDst ? above('dst', request === 'write' ? sector : undefined) : matrixNode(folder, 'dst'),
  ];
}

function policyArgs(kind: JobKind, request: FailingRequest, policy: OnError): Readonly<Record<string, unknown>> {
  if (kind === 'commit' || kind === 'stream' || kind === 'active commit') return { 'on-error': policy };
  return request === 'read' ? { 'on-source-error': policy } : { 'on-target-error': policy };
}

const until = (what: string): JobStep => ({ until: what, here: true });
const CONCLUDED = until('"status": "concluded", "id": "j"');

function doesStop(policy: OnError, errno: number): boolean {
  return policy === 'stop' || ((policy === 'enospc' || policy === 'auto') && errno === ENOSPC);
}

/** The job meets its error; where that stops it, a client resumes or cancels it. */
export function errorCell(folder: string, fault: Fault, policy: OnError, stopped: 'resume' | 'cancel', host: HostOffset): readonly JobStep[] {
  const { kind, request, errno } = fault;
  const mirrors = kind === 'mirror' || kind === 'active commit';
  const stops = doesStop(policy, errno);
  const reports = !stops && policy !== 'ignore';
  const error: JobStep = until('BLOCK_JOB_ERROR');
  const still: readonly JobStep[] = [until('"status": "paused", "id": "j"'), { asleep: 'j' }, ...QUERIES, ['job-pause', { id: 'j' }], ['block-job-cancel', { device: 'j' }], ['job-complete', { id: 'j' }]];
  const resumed: readonly JobStep[] = [[kind === 'mirror' ? 'job-resume' : 'block-job-resume', kind === 'mirror' ? { id: 'j' } : { device: 'j' }]];
  const ready: readonly JobStep[] = mirrors ? [until('BLOCK_JOB_READY'), { asleep: 'j' }, ...QUERIES, ['block-job-cancel', { device: 'j' }]] : [];
  const goesOn: readonly JobStep[] = [...ready, CONCLUDED];
  const end: readonly JobStep[] = reports ? [CONCLUDED]
    : !stops ? goesOn
      : stopped === 'resume' ? [...still, ...resumed, ...goesOn] : [...still, ['block-job-cancel', { device: 'j', force: true }], CONCLUDED];
  return [
    ...openFailing(folder, fault, host), startOf(kind, policyArgs(kind, request, policy)), error, ...end, ...QUERIES, ['job-dismiss', { id: 'j' }],
    ['x-debug-query-block-graph'], ...closeAll,
  ];
}

export function errorCells(folder: string, kind: JobKind, request: FailingRequest, host: HostOffset): readonly ScriptCell[] {
  return ERROR_POLICIES.flatMap((policy) => [EIO, ENOSPC].flatMap((errno) => {
    // a backup of QEMU copies a few pieces more before it looks whether it was cancelled; how many is chance
    const ends = doesStop(policy, errno) && kind !== 'backup' ? ['resume', 'cancel'] as const : ['resume'] as const;
    return ends.map((stopped): ScriptCell => ({
      name: `${policy}, errno ${errno}, ${stopped}`, steps: errorCell(folder, { kind, request, errno }, policy, stopped, host),
    }));
  }));
}
