/**
 * Drives a running QEMU through a snapshot with RAM, in small steps that a job composes: stop, save the RAM state by a
 * migration to a unix socket, continue. Facts about QEMU that shape this:
 *
 * - QEMU gives up the write locks of its images before it reports `completed`, so that another process may write them;
 *   `cont` takes them back and reads the images' metadata anew.
 * - A failed or cancelled migration takes the locks back by itself.
 * - After `completed` the machine is `postmigrate`: stopped, and not to be migrated again before it ran.
 */
import type { QmpClient } from '../qmp/client.js';
import { expectList, expectObject, expectText } from '../qmp/wire.js';
import { systemClock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import type { SocketInput } from './sources.js';
import type { VmStateConsumer } from './writer.js';

/** QEMU's run states in which a machine changes hands or shape; a snapshot now would be of neither. */
const UNSETTLED_STATES = new Set(['inmigrate', 'finish-migrate', 'save-vm', 'restore-vm', 'colo']);
const FINAL_MIGRATION_STATES = new Set(['completed', 'failed', 'cancelled']);
const SETTLE_POLL_MS = 10;
const SETTLE_TIMEOUT_MS = 30_000;

/**
 * Capabilities that change what flows through the socket: more than one stream, an answer from the other side, memory or
 * disks left out of or added to it, a migration that waits for a command or a guest that runs on.
 */
const UNFIT_CAPABILITIES = new Set([
  'multifd', 'mapped-ram', 'zero-copy-send', 'rdma-pin-all', 'return-path', 'postcopy-ram', 'postcopy-preempt',
  'switchover-ack', 'x-colo', 'x-ignore-shared', 'block', 'compress', 'pause-before-switchover', 'background-snapshot', 'release-ram',
]);

export interface MachineStatus {
  /** QEMU's name: `running`, `paused`, `prelaunch`, `postmigrate`, … */
  readonly state: string;
  readonly running: boolean;
}

export async function machineStatus(qmp: QmpClient): Promise<MachineStatus> {
  const reply = expectObject('query-status', await qmp.execute('query-status'));
  return { state: expectText('query-status', reply, 'status'), running: reply['running'] === true };
}

/** Refuses by name what a snapshot must not meddle with: a migration or a block job under way, a machine in transition. */
export async function checkSettled(qmp: QmpClient): Promise<MachineStatus> {
  const status = await machineStatus(qmp);
  const machine = `the machine at '${qmp.path}'`;
  const busy = (why: string): BlockError => new BlockError('BUSY', `${machine} ${why}`);
  if (UNSETTLED_STATES.has(status.state)) throw busy(`is in state '${status.state}'`);
  if (!status.running && (await findMarks(qmp)).length > 0) {
    throw busy(`was left stopped ('${status.state}') by a run that was killed; let it run again with the QMP command 'cont'`);
  }
  if (status.state === 'postmigrate') {
    throw busy("is stopped after a migration ('postmigrate'), and QEMU saves it again only when it ran in between: send it 'cont' first");
  }
  const migration = await migrationStatus(qmp);
  if (!migration.ended) throw busy(`is being migrated ('${migration.state}')`);
  const jobs = expectList('query-block-jobs', await qmp.execute('query-block-jobs'));
  if (jobs.length > 0) {
    throw busy(`has block jobs under way: ${jobs.map((job) => `'${String(job['device'])}' (${String(job['type'])})`).join(', ')}`);
  }
  return status;
}

/**
 * Runs `section` while the machine is stopped, and lets it run again only if it ran before, however `section` ended.
 * A machine that we stopped carries a mark, so that the next run can name what a killed one left behind.
 */
export async function whileStopped<T>(qmp: QmpClient, section: () => Promise<T>): Promise<T> {
  const { running } = await checkSettled(qmp);
  if (!running) return section();
  let result: T;
  try {
    await setMark(qmp);
    await qmp.execute('stop');
    result = await section();
  } catch (error) {
    await resume(qmp).catch((second: unknown) => { throw leftStopped(qmp, error, second); });
    throw error;
  }
  await resume(qmp);
  return result;
}

/** Stops the machine for a moment, with the mark of `whileStopped`, until `resume`. Returns false where it does not run. */
export async function pause(qmp: QmpClient): Promise<boolean> {
  if (!(await machineStatus(qmp)).running) return false;
  await setMark(qmp);
  await qmp.execute('stop');
  return true;
}

/** Takes the images back and lets the guest run. */
export async function resume(qmp: QmpClient): Promise<void> {
  await migrationSettled(qmp);
  await qmp.execute('cont');
  await clearMarks(qmp);
}

/**
 * Migrates the stopped machine to `input`, which listens already, and feeds the stream into `into`. Resolves with its
 * length when QEMU has reported `completed` and the stream has ended; from then on the images are free for writing.
 * Where it fails (also by the signal that `input` was opened with), the migration is over and the images are QEMU's again.
 */
export function migrateInto(qmp: QmpClient, input: SocketInput, into: VmStateConsumer): Promise<number> {
  return migrateTo(qmp, { path: input.path, receive: () => input.pump(into), close: () => input.close() });
}

/** Where a migration goes. */
interface MigrationTarget {
  /** A unix socket that listens. */
  readonly path: string;
  /** Takes the stream, up to its end. Called once; what it resolves with, the migration does. */
  receive(): Promise<number>;
  /** Ends `receive`. */
  close(): Promise<void>;
}

export async function migrateTo(qmp: QmpClient, target: MigrationTarget, signal?: AbortSignal): Promise<number> {
  const restore = await tuneMigration(qmp);
  try {
    return await runMigration(qmp, target, signal);
  } finally {
    await restore();
  }
}

async function runMigration(qmp: QmpClient, target: MigrationTarget, signal: AbortSignal | undefined): Promise<number> {
  const waiting = new AbortController();
  const ended = migrationEnd(qmp, signal === undefined ? waiting.signal : AbortSignal.any([waiting.signal, signal]));
  const pumped = target.receive();
  // both are awaited below; until then neither may count as unhandled
  ended.catch(() => undefined);
  pumped.catch(() => undefined);
  try {
    await qmp.execute('migrate', { uri: `unix:${target.path}` });
    const [bytes] = await Promise.all([pumped, ended]);
    await migrationSettled(qmp);
    return bytes;
  } catch (error) {
    waiting.abort();
    await cancelMigration(qmp).catch(() => undefined);
    await target.close();
    await pumped.catch(() => undefined);
    throw error;
  }
}

/** Resolves when QEMU reports `completed`; any other end is thrown with QEMU's reason. */
async function migrationEnd(qmp: QmpClient, signal: AbortSignal): Promise<void> {
  const event = await qmp.waitEvent('MIGRATION', (data) => FINAL_MIGRATION_STATES.has(String(data['status'])), { signal });
  const state = String(event.data['status']);
  if (state === 'completed') return;
  const { reason } = await migrationStatus(qmp);
  throw new BlockError('PEER', `QEMU did not save the RAM state of the machine at '${qmp.path}': its migration ended as '${state}'${reason}`);
}

async function cancelMigration(qmp: QmpClient): Promise<void> {
  const { ended } = await migrationStatus(qmp);
  if (!ended) await qmp.execute('migrate_cancel');
  await migrationSettled(qmp);
}

/** QEMU reports the end of a migration a moment before the machine is in its final state; `cont` is refused until then. */
async function migrationSettled(qmp: QmpClient): Promise<void> {
  const deadline = systemClock.monotonicMs() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const [migration, machine] = [await migrationStatus(qmp), await machineStatus(qmp)];
    if (migration.ended && machine.state !== 'finish-migrate') return;
    if (systemClock.monotonicMs() > deadline) {
      throw new BlockError('PEER', `the migration of the machine at '${qmp.path}' does not end: it is '${migration.state}', the machine '${machine.state}'`);
    }
    await systemClock.sleep(SETTLE_POLL_MS);
  }
}

interface MigrationStatus {
  readonly state: string;
  readonly ended: boolean;
  /** `: why`, or nothing. */
  readonly reason: string;
}

async function migrationStatus(qmp: QmpClient): Promise<MigrationStatus> {
  const reply = expectObject('query-migrate', await qmp.execute('query-migrate'));
  const state = typeof reply['status'] === 'string' ? reply['status'] : 'none';
  const reason = typeof reply['error-desc'] === 'string' ? `: ${reply['error-desc']}` : '';
  return { state, ended: state === 'none' || FINAL_MIGRATION_STATES.has(state), reason };
}

/** Full speed, events, and nothing that makes the stream more or less than the machine's state. Returns what puts it back. */
async function tuneMigration(qmp: QmpClient): Promise<() => Promise<void>> {
  const undo: (() => Promise<unknown>)[] = [];
  const restore = async (): Promise<void> => {
    // a machine that is gone has no settings to put back, and one that is there is named by whatever fails next
    for (const step of undo.reverse()) await step().catch(() => undefined);
  };
  try {
    const unfit = await capabilitiesToChange(qmp);
    if (unfit.length > 0) {
      await qmp.execute('migrate-set-capabilities', { capabilities: unfit });
      const former = unfit.map(({ capability, state }) => ({ capability, state: !state }));
      undo.push(() => qmp.execute('migrate-set-capabilities', { capabilities: former }));
    }
    const parameters = expectObject('query-migrate-parameters', await qmp.execute('query-migrate-parameters'));
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': Number.MAX_SAFE_INTEGER });
    undo.push(() => qmp.execute('migrate-set-parameters', { 'max-bandwidth': parameters['max-bandwidth'] }));
    return restore;
  } catch (error) {
    await restore();
    throw error;
  }
}

async function capabilitiesToChange(qmp: QmpClient): Promise<{ capability: string; state: boolean }[]> {
  const reply = expectList('query-migrate-capabilities', await qmp.execute('query-migrate-capabilities'));
  return reply
    .map((item) => ({ capability: String(item['capability']), state: item['state'] === true }))
    .filter(({ capability, state }) => capability === 'events' ? !state : state && UNFIT_CAPABILITIES.has(capability))
    .map(({ capability, state }) => ({ capability, state: !state }));
}

/**
 * The mark of a machine that we stopped is an object inside it: it needs no file, is seen by whoever looks next, and is
 * gone with the machine. A secret does nothing and is no part of a machine's state.
 */
const MARK = 'quiesce-stopped-';

async function setMark(qmp: QmpClient): Promise<void> {
  await clearMarks(qmp);
  await qmp.execute('object-add', { 'qom-type': 'secret', id: `${MARK}${process.pid}`, data: 'none' });
}

async function clearMarks(qmp: QmpClient): Promise<void> {
  for (const id of await findMarks(qmp)) await qmp.execute('object-del', { id });
}

async function findMarks(qmp: QmpClient): Promise<string[]> {
  const objects = expectList('qom-list', await qmp.execute('qom-list', { path: '/objects' }));
  return objects.map((object) => String(object['name'])).filter((name) => name.startsWith(MARK));
}

function leftStopped(qmp: QmpClient, first: unknown, second: unknown): BlockError {
  const code = first instanceof BlockError ? first.code : 'IO';
  return new BlockError(code, `${messageOf(first)}; and the machine at '${qmp.path}' is left stopped: ${messageOf(second)}`, { cause: first });
}
