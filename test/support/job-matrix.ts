/**
 * Every verb in every state of every kind of job, as scripts for both daemons. Which state follows is told by the table of
 * verbs, so that a script waits for events and never for time: a peer that goes another way makes it fail.
 */
import { copyFile } from 'node:fs/promises';
import type { JobStatus, JobVerb } from '../../src/job/job-states.js';
import { VERBS } from '../../src/job/job-states.js';
import type { JobStep } from './job-script.js';
import { runOk } from './run.js';

type Args = Readonly<Record<string, unknown>>;

export type JobKind = 'mirror' | 'mirror write-blocking' | 'active commit' | 'commit' | 'stream' | 'backup' | 'backup none';
export const JOB_KINDS: readonly JobKind[] = ['mirror', 'mirror write-blocking', 'active commit', 'commit', 'stream', 'backup', 'backup none'];

export type MatrixState = 'running' | 'paused' | 'ready' | 'standby' | 'waiting' | 'pending' | 'concluded' | 'cancelled';
const ALL_STATES: readonly MatrixState[] = ['running', 'paused', 'ready', 'standby', 'waiting', 'pending', 'concluded', 'cancelled'];

interface Verb {
  readonly command: string;
  readonly verb: JobVerb;
  readonly key: 'id' | 'device';
  readonly more?: Args;
}

export const JOB_VERBS: readonly Verb[] = [
  ...(['pause', 'resume', 'cancel', 'complete', 'finalize', 'dismiss'] as const).flatMap((verb): Verb[] => [
    { command: `job-${verb}`, verb, key: 'id' },
    { command: `block-job-${verb}`, verb, key: verb === 'finalize' || verb === 'dismiss' ? 'id' : 'device' },
  ]),
  { command: 'block-job-cancel', verb: 'cancel', key: 'device', more: { force: true } },
  { command: 'block-job-set-speed', verb: 'set-speed', key: 'device', more: { speed: 0 } },
  { command: 'block-job-set-speed', verb: 'set-speed', key: 'device', more: { speed: 1 } },
  { command: 'block-job-set-speed', verb: 'set-speed', key: 'device', more: { speed: -1 } },
];

export const verbName = ({ command, more }: Verb): string => `${command}${more === undefined ? '' : ` ${JSON.stringify(more)}`}`;

const mirrors = (kind: JobKind): boolean => kind.startsWith('mirror') || kind === 'active commit';

/** Those that QEMU can be held in. */
export function statesOf(kind: JobKind): readonly MatrixState[] {
  return ALL_STATES.filter((state) => {
    if (state === 'ready' || state === 'standby') return mirrors(kind);
    if (state === 'waiting') return kind === 'backup';
    // it ends when it is cancelled
    return kind !== 'backup none' || (state !== 'pending' && state !== 'concluded');
  });
}

const IMAGES = ['base', 'mid', 'top', 'dst', 'other'] as const;

/** What the scripts begin with: a chain of 2 MiB with data in each image, an empty disk of that size, and a full one. */
export async function makeMatrixImages(folder: string): Promise<void> {
  const file = (name: string): string => `${folder}/${name}.origin`;
  for (const [name, below] of [['base', null], ['mid', 'base'], ['top', 'mid'], ['dst', null], ['other', null]] as const) {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...below === null ? [] : ['-u', '-b', `${folder}/${below}.qcow2`, '-F', 'qcow2'], file(name), '2M']);
  }
  for (const [name, writes] of [['base', ['write -q -P 1 0 2M']], ['other', ['write -q -P 5 0 2M']], ['mid', ['write -q -P 2 0 1M', 'write -q -P 3 1536k 64k']], ['top', ['write -q -P 4 64k 128k']]] as const) {
    // without what is below: whole clusters
    await runOk('qemu-io', [...writes.flatMap((write) => ['-c', write]), `json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"${file(name)}"}}`]);
  }
}

/** The images as they were made. */
export function restored(folder: string): JobStep {
  return { run: async () => { for (const name of IMAGES) await copyFile(`${folder}/${name}.origin`, `${folder}/${name}.qcow2`); } };
}

export function matrixNode(folder: string, name: string, options: Args = {}): JobStep {
  return ['blockdev-add', { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: `${folder}/${name}.qcow2` }, ...options }];
}

export const openAll = (folder: string): readonly JobStep[] => [
  restored(folder), matrixNode(folder, 'base', { 'read-only': true }), matrixNode(folder, 'mid', { 'read-only': true, backing: 'base' }),
  matrixNode(folder, 'top', { backing: 'mid' }), matrixNode(folder, 'dst'),
];

export const closeAll: readonly JobStep[] = ['dst', 'top', 'mid', 'base'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]);

export const QUERIES: readonly JobStep[] = [['query-jobs'], ['query-block-jobs']];

/** Starts a job of a kind; it is dismissed by hand. */
export function startOf(kind: JobKind, more: Args = {}): JobStep {
  const common = { 'job-id': 'j', device: 'top', 'auto-dismiss': false, ...more };
  const small = { granularity: 65_536, 'buf-size': 65_536 };
  if (kind.startsWith('mirror')) {
    return ['blockdev-mirror', { target: 'dst', sync: 'full', ...small, ...kind === 'mirror' ? {} : { 'copy-mode': 'write-blocking' }, ...common }];
  }
  if (kind === 'active commit') return ['block-commit', { 'base-node': 'base', ...common }];
  if (kind === 'commit') return ['block-commit', { 'base-node': 'base', 'top-node': 'mid', ...common }];
  if (kind === 'stream') return ['block-stream', { ...common }];
  return ['blockdev-backup', { target: 'dst', sync: kind === 'backup' ? 'full' : 'none', 'x-perf': { 'max-workers': 1 }, ...common }];
}

const until = (status: JobStatus): JobStep => ({ until: `"status": "${status}", "id": "j"`, here: true });
const READY: JobStep = { until: 'BLOCK_JOB_READY', here: true };
const slow = (kind: JobKind): Args => (kind === 'backup none' ? {} : { speed: 1 });
/** Until it sleeps for its speed: what it says of itself no longer changes. */
const ASLEEP: JobStep = { asleep: 'j' };
/** What it copies before its speed makes it wait. */
const FIRST_BYTES: Readonly<Record<JobKind, number>> = {
  mirror: 65_536, 'mirror write-blocking': 65_536, 'active commit': 2 ** 20, commit: 2 ** 19, stream: 65_536, backup: 65_536, 'backup none': 0,
};
const asleep = (kind: JobKind): JobStep => ({ asleep: 'j', moved: FIRST_BYTES[kind] });

/** Leads a new job into the state. */
function into(kind: JobKind, state: MatrixState): readonly JobStep[] {
  if (state === 'running') return [startOf(kind, slow(kind)), asleep(kind)];
  if (state === 'paused') return [startOf(kind, slow(kind)), asleep(kind), ['job-pause', { id: 'j' }], until('paused')];
  if (state === 'cancelled') return [startOf(kind, slow(kind)), asleep(kind), ['job-cancel', { id: 'j' }], until('concluded')];
  if (state === 'ready') return [startOf(kind), READY, ASLEEP];
  if (state === 'standby') return [startOf(kind), READY, ASLEEP, ['job-pause', { id: 'j' }], until('standby')];
  const completed: readonly JobStep[] = mirrors(kind) ? [READY, ['job-complete', { id: 'j' }]] : [];
  if (state === 'pending') return [startOf(kind, { 'auto-finalize': false }), ...completed, { until: 'BLOCK_JOB_PENDING', here: true }];
  if (state === 'concluded') return [startOf(kind), ...completed, until('concluded')];
  const backup = (args: Args): Args => ({ type: 'blockdev-backup', data: (startOf('backup', args) as readonly [string, Args])[1] });
  // the other one is held up by its speed
  return [
    ['blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 2 ** 21, 'read-zeroes': false }], ['blockdev-add', { driver: 'null-co', 'node-name': 'm', size: 2 ** 21 }],
    ['transaction', { properties: { 'completion-mode': 'grouped' }, actions: [backup({}), backup({ 'job-id': 'k', device: 'n', target: 'm', speed: 1 })] }],
    until('waiting'), { asleep: 'k' },
  ];
}

const CONCLUDED: readonly MatrixState[] = ['concluded', 'cancelled'];
const statusIn = (state: MatrixState): JobStatus => (state === 'cancelled' ? 'concluded' : state);

const AFTER_PAUSE: Partial<Record<MatrixState, MatrixState>> = { running: 'paused', ready: 'standby' };
const AFTER_RESUME: Partial<Record<MatrixState, MatrixState>> = { paused: 'running', standby: 'ready' };

/** The state after a verb: null where the job is gone. */
function after(kind: JobKind, state: MatrixState, verb: Verb): MatrixState | null {
  if (!VERBS[verb.verb].includes(statusIn(state))) return state;
  switch (verb.verb) {
    case 'dismiss': return null;
    case 'finalize': return 'concluded';
    case 'pause': return AFTER_PAUSE[state] ?? state;
    case 'resume': return AFTER_RESUME[state] ?? state;
    case 'complete': return state === 'ready' ? 'concluded' : state; // a paused job stays where it is
    case 'cancel': return isSoft(verb) && AFTER_RESUME[state] !== undefined ? state : 'concluded';
    default: return state === 'running' && kind !== 'backup none' && verb.more?.['speed'] === 0 ? (mirrors(kind) ? 'ready' : 'concluded') : state;
  }
}

function isSoft({ command, more }: Verb): boolean {
  return command === 'block-job-cancel' && more === undefined;
}

/** Ends what is left, whatever it is. */
function cleanUp(state: MatrixState | null): readonly JobStep[] {
  if (state === null) return [];
  const cancel: readonly JobStep[] = CONCLUDED.includes(state) ? [] : [['block-job-cancel', { device: 'j', force: true }], until('concluded')];
  return [...cancel, ['block-job-dismiss', { id: 'j' }]];
}

/** One cell: a new job, led into the state, the verb, what is told then, and its end. */
export function cell(folder: string, kind: JobKind, state: MatrixState, verb: Verb): readonly JobStep[] {
  const next = after(kind, state, verb);
  const reached: readonly JobStep[] = next === null || next === state ? [] : [next === 'ready' && state === 'running' ? READY : until(statusIn(next))];
  const still: readonly JobStep[] = next === 'running' ? [asleep(kind)] : next === 'ready' ? [ASLEEP] : [];
  const other: readonly JobStep[] = state !== 'waiting' ? [] : [
    ['query-jobs'], ['job-dismiss', { id: 'k' }], ['blockdev-del', { 'node-name': 'n' }], ['blockdev-del', { 'node-name': 'm' }],
  ];
  return [
    ...openAll(folder), ...into(kind, state), ...QUERIES, [verb.command, { [verb.key]: 'j', ...verb.more }], ...reached, ...still, ...QUERIES, ...cleanUp(next), ...other,
    ['x-debug-query-block-graph'], ...closeAll, ['query-named-block-nodes', { flat: true }],
  ];
}
