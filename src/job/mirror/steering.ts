/** Who steers a mirror that runs in another process: a daemon of ours itself, or for QEMU we. */
import type { Clock } from '../../base/clock.js';
import type { QmpClient } from '../../qmp/client.js';
import { expectList, isObject, type JsonObject } from '../../qmp/wire.js';
import { MAX_GUEST_LATENCY_MS, type ControllerOptions } from './controller.js';
import { phaseData } from './pilot.js';
import type { MirrorProgress } from './progress.js';
import { QemuLatency } from './qemu-latency.js';
import { MachinePause } from './machine-pause.js';
import { QemuSteering, type QemuWay } from './qemu-steering.js';
import { QemuThrottle, textIn } from './qemu-throttle.js';
import type { CopyMode } from './state.js';

export interface Steering {
  /** For `blockdev-mirror`. */
  readonly args: JsonObject;
  /** What the job does not tell itself. */
  readonly progress: Partial<MirrorProgress>;
  /** The job as `query-block-jobs` tells of it, ten times a second. */
  look(job: JsonObject): Promise<void>;
  /** All is as it was before. */
  end(): Promise<void>;
}

/** A daemon of ours does all by itself. */
export function steerOurs(copyMode: CopyMode | 'auto', { deadlineMs, maxGuestLatencyMs, throttleBelow, minGuestRate }: ControllerOptions, verify: boolean): Steering {
  const options = {
    'x-quiesce-deadline': deadlineMs, 'x-quiesce-max-guest-latency': maxGuestLatencyMs, 'x-quiesce-throttle-below': throttleBelow, 'x-quiesce-min-guest-rate': minGuestRate,
  };
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    args: { ...copyMode === 'auto' ? { 'x-quiesce-copy-mode': 'auto', ...options } : { 'copy-mode': copyMode }, ...verify ? { 'x-quiesce-verify': true } : {} },
    progress: {}, look: nothing, end: nothing,
  };
}

export interface SteerQemuParts {
  readonly qmp: QmpClient;
  readonly jobId: string;
  /** It has `block-job-change`. */
  readonly canChange: boolean;
  readonly clock: Clock;
  readonly onEvent?: ((event: string, data: JsonObject) => void) | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
}

export interface QemuDisk {
  /** As `query-named-block-nodes` tells of it. */
  readonly node: JsonObject;
  /** Who has it, as `query-block` tells. */
  readonly device: JsonObject | null;
  readonly copyMode: CopyMode | 'auto';
  readonly convergence: ControllerOptions;
}

export async function steerQemu(parts: SteerQemuParts, { node, device, copyMode, convergence }: QemuDisk): Promise<Steering> {
  const { qmp, jobId, onEvent, onWarning } = parts;
  const auto = copyMode === 'auto';
  const throttle = auto ? await QemuThrottle.of(qmp, device, node) : null;
  const way: QemuWay = parts.canChange ? 'change' : device === null ? 'through' : 'stop';
  const pause = way === 'stop' && auto ? new MachinePause(qmp, parts.clock, convergence.maxGuestLatencyMs ?? MAX_GUEST_LATENCY_MS) : null;
  if (auto && throttle === null && way !== 'through') onWarning?.(`no device has '${String(node['node-name'])}' and no throttle filter is over it: who writes to it cannot be slowed down`);
  const name = device === null ? null : textIn(device, 'qdev') || textIn(device, 'device');
  const latency = name === null ? null : await QemuLatency.start(qmp, name, await statsOf(qmp, name));
  const steering = auto ? new QemuSteering({ ...parts, throttle, way, onPhase: (now) => onEvent?.('BLOCK_JOB_PHASE', phaseData(jobId, now)) }, convergence) : null;
  const look = async (job: JsonObject): Promise<void> => {
    const stats = name === null ? null : await statsOf(qmp, name);
    if (stats !== null) latency?.look(stats);
    await steering?.look(job, stats === null ? null : Number(stats['wr_bytes']));
    if (steering !== null) await pause?.look(steering.shouldStop());
  };
  return {
    args: { 'copy-mode': !auto ? copyMode : way === 'through' ? 'write-blocking' : 'background' },
    get progress() { return { convergence: steering?.convergence ?? null, guestP99Ms: latency?.p99 ?? null }; },
    look,
    end: async () => {
      await pause?.end();
      await latency?.stop().catch(() => undefined);
      await throttle?.set(null);
    },
  };
}

async function statsOf(qmp: QmpClient, device: string): Promise<JsonObject | null> {
  const all = expectList('query-blockstats', await qmp.execute('query-blockstats'));
  const stats = all.find((one) => one['qdev'] === device || one['device'] === device)?.['stats'];
  return isObject(stats) ? stats : null;
}
