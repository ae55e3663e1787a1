/**
 * A part of build.js: runs what users run often, so that the functions it takes are compiled ahead (build-code.cjs).
 * Whatever fails here costs start-up time, and nothing else.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('.', import.meta.url));
const MiB = 1024 * 1024;
/** Nothing here takes nearly as long. */
const LIMIT_MS = 60_000;

/** What scripts call hundreds of times. */
const FREQUENT = [
  ['--version'],
  ['image', 'create', 'a', '1M'],
  ['image', 'info', 'a'],
  ['image', 'resize', 'a', '+1M'],
  ['image', 'bitmap', 'a', 'b', '--add', '--remove'],
  ['image', 'check', 'a'],
  ['nbd', 'copy', 'a', 'b'],
  ['snapshot', 'create', 'a', 's', '--vm-state', 'b'],
  ['snapshot', 'list', 'a'],
  ['snapshot', 'load', 'a', 's', '--vm-state', 'b'],
  ['snapshot', 'delete', 'a', 's'],
];

/** And a copy between servers: their sockets and images. */
const SERVED = [['from', 'served'], ['to', 'empty']];
const ON_SERVERS = ['nbd', 'copy', ...SERVED.map(([socket]) => `nbd+unix:///?socket=${socket}`)];

/** What a daemon's first jobs take: its images, and after each command the event that is waited for. */
const IMAGES = [
  ['nbd', 'copy', 'served', 'disk.qcow2'],
  ...['mirrored', 'saved'].map((name) => ['image', 'create', '-f', 'qcow2', name, '4M']),
  ['image', 'create', '-f', 'qcow2', '-b', 'disk.qcow2', '-F', 'qcow2', 'middle'],
  ['image', 'create', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', 'top'],
];
const NODES = ['mirrored', 'saved', 'top'];
const copyTo = (job, target) => ({ 'job-id': job, device: 'top', target, sync: 'full' });
const JOBS = [
  ['qmp_capabilities', {}, null],
  ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'top', name: 'top', writable: true }, null],
  ['blockdev-mirror', copyTo('m', 'mirrored'), 'BLOCK_JOB_READY'],
  ['block-job-cancel', { device: 'm' }, 'BLOCK_JOB_COMPLETED'],
  ['blockdev-backup', copyTo('b', 'saved'), 'BLOCK_JOB_COMPLETED'],
  ['block-stream', { 'job-id': 's', device: 'top' }, 'BLOCK_JOB_COMPLETED'],
  ['quit', {}, null],
];

/** Sends each command when the one before has been answered, and its event has come. */
async function drive(daemon) {
  const steps = JOBS[Symbol.iterator]();
  let awaited = null;
  const next = () => {
    const { value } = steps.next();
    if (value === undefined) return;
    const [execute, args, event] = value;
    awaited = event;
    daemon.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
  };
  for await (const line of createInterface({ input: daemon.stdout })) {
    const told = JSON.parse(line);
    if ('error' in told) throw new Error(line);
    if ('QMP' in told || ('return' in told && awaited === null) || (told.event !== undefined && told.event === awaited)) next();
  }
}

/** Ends it where it has not ended by itself. */
async function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
  await gone;
  clearTimeout(limit);
}

async function copyBetweenServers(program, run, images) {
  const servers = SERVED.map(([socket, image]) => spawn(...program('nbd', ['-k', join(images, socket), '-f', 'raw', '-t', '-e', '8', image]), { cwd: images, stdio: 'ignore' }));
  try {
    const gone = () => servers.some(({ exitCode, signalCode }) => exitCode !== null || signalCode !== null);
    for (let tries = 0; tries < 1200 && !gone() && SERVED.some(([socket]) => !existsSync(join(images, socket))); tries++) await sleep(25);
    run(ON_SERVERS);
  } finally {
    await Promise.all(servers.map((server) => ended(server)));
  }
}

async function runJobs(program, images) {
  const daemon = spawn(...program('storage-daemon', [
    '--chardev', 'stdio,id=m', '--monitor', 'chardev=m', '--nbd-server', `addr.type=unix,addr.path=${join(images, 'export')}`,
    ...NODES.flatMap((name) => ['--blockdev', `qcow2,node-name=${name},file.driver=file,file.filename=${name}`]),
  ]), { cwd: images, stdio: ['pipe', 'pipe', 'ignore'] });
  daemon.stdin.on('error', () => {}); // where it ends early, its output ends too
  const limit = setTimeout(() => daemon.kill('SIGKILL'), LIMIT_MS);
  try {
    await drive(daemon);
  } finally {
    await ended(daemon);
    clearTimeout(limit);
  }
}

/** Compiles ahead into the folder of the bundle. */
export async function compileAhead(cli) {
  try {
    const images = mkdtempSync(join(tmpdir(), 'quiesce-build-'));
    await runOften(cli, images).finally(() => rmSync(images, { recursive: true, force: true }));
  } catch (error) {
    console.error(`quiesce: not all is compiled ahead: ${error.message}`);
  }
}

async function runOften(cli, images) {
  const program = (entry, args) => [process.execPath, [join(root, 'build-code.cjs'), cli, entry, ...args]];
  const run = (command) => spawnSync(...program('main', command), { cwd: images, stdio: 'ignore', timeout: LIMIT_MS, killSignal: 'SIGKILL' });
  for (const [, image] of SERVED) writeFileSync(join(images, image), Buffer.alloc(4 * MiB, image));
  FREQUENT.forEach(run);
  await copyBetweenServers(program, run, images);
  IMAGES.forEach(run);
  await runJobs(program, images);
}
