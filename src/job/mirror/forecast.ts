/** Tells from measured rates whether a mirror will become ready and when, by letting the controller of copy-mode `auto` run in fast motion. */
import { ConvergenceController, TICK_MS, type ControllerOptions, type Decision, type MirrorPhase } from './controller.js';

export interface ForecastOptions {
  /** Bytes to be copied, bytes per second that the target takes, and that guests make dirty. */
  readonly bytes: number;
  readonly copyRate: number;
  readonly dirtyRate: number;
  readonly convergence?: ControllerOptions | undefined;
}

export interface Forecast {
  /** Milliseconds until ready; null: never. */
  readonly background: number | null;
  readonly auto: number | null;
  /** The phases of `auto`, in order. */
  readonly phases: readonly MirrorPhase[];
  /** The part of their writes that guests get through meanwhile in `auto`, 0 … 1. */
  readonly guestShare: number;
}

/** Days are not looked ahead tick by tick. */
const MAX_TICKS = 200_000;

export function forecast({ bytes, copyRate, dirtyRate, convergence = {} }: ForecastOptions): Forecast {
  const net = copyRate - dirtyRate;
  const background = bytes === 0 ? 0 : net > 0 ? bytes / net * 1000 : null;
  if (copyRate <= 0) return { background, auto: background, phases: [], guestShare: 1 };
  const controller = new ConvergenceController(convergence, 0);
  const phases: MirrorPhase[] = [];
  let [dirty, written, dirtied, wanted, served, now] = [bytes, 0, 0, 0, 0, 0];
  for (let tick = 0; tick < MAX_TICKS; tick++) {
    const decision: Decision = controller.tick({ nowMs: now, dirty, written, dirtied, guestLatencyMs: 0, targetSilentMs: 0 });
    if (phases.at(-1) !== decision.phase) phases.push(decision.phase);
    if (decision.phase === 'ready') return { background, auto: now, phases, guestShare: wanted === 0 ? 1 : served / wanted };
    const seconds = TICK_MS / 1000;
    const demand = dirtyRate * seconds;
    const admitted = Math.min(demand, (decision.guestRate ?? Infinity) * seconds);
    const through = decision.copyMode === 'write-blocking' ? Math.min(admitted, copyRate * seconds) : 0;
    const copied = Math.min(dirty, copyRate * seconds - through);
    dirty += (decision.copyMode === 'background' ? admitted : 0) - copied;
    written += copied + through;
    dirtied += admitted;
    wanted += demand;
    served += decision.copyMode === 'background' ? admitted : through;
    now += TICK_MS;
  }
  return { background, auto: null, phases, guestShare: served / wanted };
}
