import { expect, test } from '@jest/globals';
import { BlockChild } from '../../../src/block/child.js';
import { BlockGraph } from '../../../src/block/graph.js';
import { BlockNode } from '../../../src/block/node.js';
import { Permission } from '../../../src/block/permissions.js';
import { pauseJobs, subtrees, whileJobsPause } from '../../../src/daemon/job-pauses.js';
import { BlockJobs, type BlockJob } from '../../../src/job/block-job.js';
import type { JobContext, JobWork } from '../../../src/job/job.js';
import { JobTable } from '../../../src/job/job-table.js';
import { NullDriver } from '../../../src/protocol/null.js';
import { VirtualClock } from '../../support/virtual-clock.js';

const USE = { used: 0, shared: Permission.ALL };

/** `top` lies on `base`, beside them stands `other`; each job works on one of them. */
async function setUp() {
  const seen: string[] = [];
  const clock = new VirtualClock();
  const jobs = new BlockJobs(new JobTable(({ id, status }) => seen.push(`${id} ${status}`)), { emit: () => undefined }, clock);
  const graph = new BlockGraph();
  const node = (name: string, child?: BlockChild): BlockNode => {
    const driver = new NullDriver({ bytes: 4096 });
    const made = new BlockNode({ name, nodeName: graph.takeName(name), pinned: true, driver: child === undefined ? driver : Object.assign(driver, { children: [child] }) });
    graph.add(made);
    return made;
  };
  const base = node('base');
  const top = node('top', new BlockChild('file', 'file', base));
  const other = node('other');
  const start = async (id: string, on: BlockNode, work: JobWork = { run: sleeping }): Promise<BlockJob> => {
    const made = jobs.create({ id, type: 'mirror' }, () => work);
    await made.addNode(graph, 'source', on, USE);
    made.job.start();
    await clock.advance(0);
    seen.length = 0;
    return made;
  };
  return { seen, clock, jobs, base, top, other, start };
}

const sleeping = async (context: JobContext): Promise<void> => { for (;;) await context.sleep(Infinity); };
const readyAndSleeping = async (context: JobContext): Promise<void> => {
  context.becomeReady();
  await sleeping(context);
};

test('the jobs of a node and of what lies above it stand still, the others go on', async () => {
  const { seen, jobs, base, top, other, start } = await setUp();
  await start('a', top);
  await start('b', base, { run: readyAndSleeping });
  await start('c', other);
  expect(await whileJobsPause(jobs, [base], async () => seen.push('section'))).toBe(3);
  expect(seen).toEqual(['a paused', 'b standby', 'section', 'a running', 'b ready']);
  seen.length = 0;
  await pauseJobs(jobs, [top]);
  expect(seen).toEqual(['a paused', 'a running']);
  seen.length = 0;
  await pauseJobs(jobs, 'all');
  expect(seen).toEqual(['a paused', 'b standby', 'c paused', 'a running', 'b ready', 'c running']);
  expect(subtrees([top, other]).map(({ nodeName }) => nodeName)).toEqual(['top', 'base', 'other']);
});

test('sections nest; they go on where the section fails', async () => {
  const { seen, jobs, top, start } = await setUp();
  await start('a', top);
  await expect(whileJobsPause(jobs, [top], async () => {
    await pauseJobs(jobs, 'all');
    throw new Error('no');
  })).rejects.toThrow('no');
  expect(seen).toEqual(['a paused', 'a running']);
});

test('a job that a client paused stays so, and one that was cancelled meanwhile keeps nobody', async () => {
  const { seen, jobs, top, start } = await setUp();
  const { job } = await start('a', top);
  job.pause();
  await pauseJobs(jobs, 'all');
  expect([job.status, job.userPaused]).toEqual(['paused', true]);
  job.resume();
  await whileJobsPause(jobs, [top], async () => job.cancel(true));
  await job.ended;
  expect(seen.at(-1)).toBe('a null');
});

test('for a job that does not come to a pause point a command waits one second', async () => {
  const { seen, clock, jobs, top, start } = await setUp();
  let answer = (): void => undefined;
  await start('a', top, { run: () => new Promise<void>((resolve) => { answer = resolve; }) });
  let done = false;
  const waiting = pauseJobs(jobs, [top]).then(() => { done = true; });
  await clock.advance(900);
  expect(done).toBe(false);
  await clock.advance(100);
  expect(done).toBe(true);
  await waiting;
  expect(seen).toEqual([]);
  answer();
});
