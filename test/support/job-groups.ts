/** Backups that are started by one transaction, each with an end of its own, as scripts for both daemons. */
import type { JobStep } from './job-script.js';
import { matrixNode, restored } from './job-matrix.js';

/** What happens to one of the jobs: a client lets it run to its end, or it meets an error, or is cancelled. */
type Fate = 'runs' | 'fails' | 'cancel' | 'force cancel';
const FATES: readonly Fate[] = ['runs', 'fails', 'cancel', 'force cancel'];
const JOBS = ['a', 'b'] as const;
type Name = (typeof JOBS)[number];

interface Group {
  readonly grouped: boolean;
  readonly autoFinalize: boolean;
  readonly fates: Readonly<Record<Name, Fate>>;
  /** Whose fate comes first. */
  readonly first: Name;
}

const SIZE = 2 ** 21;
const until = (what: string, id: Name): JobStep => ({ until: `"status": "${what}", "id": "${id}"`, here: true });
const bitmaps: JobStep = ['query-named-block-nodes', { flat: true }];

/** Two disks with a bitmap each; what is to fail fails in the second mebibyte. */
function open(folder: string, { fates }: Group): readonly JobStep[] {
  return [
    restored(folder), matrixNode(folder, 'base', { 'read-only': true }), matrixNode(folder, 'mid', { 'read-only': true, backing: 'base' }), matrixNode(folder, 'top', { backing: 'mid' }),
    matrixNode(folder, 'other'),
    ...JOBS.flatMap((name): JobStep[] => {
      const target = { driver: 'null-co', size: SIZE };
      return [['blockdev-add', fates[name] === 'fails'
        ? { driver: 'blkdebug', 'node-name': `to-${name}`, image: target, 'inject-error': [{ event: 'none', iotype: 'write', errno: 5, once: true, sector: 3072 }] }
        : { ...target, 'node-name': `to-${name}` }]];
    }),
    ...JOBS.map((name): JobStep => ['block-dirty-bitmap-add', { node: SOURCES[name], name: 'bits', granularity: 65_536 }]),
  ];
}

const SOURCES: Readonly<Record<Name, string>> = { a: 'top', b: 'other' };

function begin({ grouped, autoFinalize }: Group): JobStep {
  const action = (name: Name): object => ({ type: 'blockdev-backup', data: {
    'job-id': name, device: SOURCES[name], target: `to-${name}`, sync: 'full', speed: 1, bitmap: 'bits', 'bitmap-mode': 'always',
    'auto-finalize': autoFinalize, 'auto-dismiss': false, 'x-perf': { 'max-workers': 1 },
  } });
  return ['transaction', { actions: JOBS.map(action), ...grouped ? { properties: { 'completion-mode': 'grouped' } } : {} }];
}

/** One job after the other meets its fate, and then the jobs come to their end. */
function script(group: Group): readonly JobStep[] {
  const { grouped, autoFinalize, fates, first } = group;
  const order: readonly Name[] = first === 'a' ? ['a', 'b'] : ['b', 'a'];
  const steps: JobStep[] = [begin(group), { asleep: 'a', moved: 65_536 }, { asleep: 'b', moved: 65_536 }, ['query-block-jobs']];
  let over = false;
  const ran: Name[] = [];
  for (const [turn, name] of order.entries()) {
    const fate = fates[name];
    if (over) {
      // the other one took it along: everything is refused
      steps.push(fate === 'runs' || fate === 'fails' ? ['block-job-set-speed', { device: name, speed: 0 }] : cancel(name, fate));
      continue;
    }
    if (fate === 'runs') {
      steps.push(['block-job-set-speed', { device: name, speed: 0 }]);
      ran.push(name);
      const last = !grouped || turn === 1;
      steps.push(!last ? until('waiting', name) : autoFinalize ? until('concluded', name) : until('pending', name));
    } else {
      steps.push(fate === 'fails' ? ['block-job-set-speed', { device: name, speed: 0 }] : cancel(name, fate));
      over = grouped;
      steps.push(until('concluded', name), ...grouped ? [until('concluded', name === 'a' ? 'b' : 'a')] : []);
    }
    steps.push(['query-jobs'], ['query-block-jobs']);
  }
  if (!autoFinalize && !over) {
    // one word is enough for a group
    for (const name of grouped ? ran.slice(0, 1) : ran) steps.push(['job-finalize', { id: name }], ...(grouped ? ran : [name]).map((one) => until('concluded', one)));
  }
  return [...steps, bitmaps, ['query-jobs'], ...JOBS.map((name): JobStep => ['job-dismiss', { id: name }])];
}

function cancel(name: Name, fate: Fate): JobStep {
  return ['block-job-cancel', { device: name, ...fate === 'force cancel' ? { force: true } : {} }];
}

const CLOSE: readonly JobStep[] = ['to-a', 'to-b', 'other', 'top', 'mid', 'base'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]);

export function groupCells(folder: string, grouped: boolean, autoFinalize: boolean): readonly { readonly name: string; readonly steps: readonly JobStep[] }[] {
  return FATES.flatMap((a) => FATES.flatMap((b) => JOBS.map((first) => {
    const group: Group = { grouped, autoFinalize, fates: { a, b }, first };
    return { name: `a ${a}, b ${b}, ${first} first`, steps: [...open(folder, group), ...script(group), ...CLOSE] };
  })));
}
