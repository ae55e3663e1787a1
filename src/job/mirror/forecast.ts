/** Tells from measured rates whether a mirror will become ready and when, by letting the controller of copy-mode `auto` run in fast motion. */
import { ConvergenceController, TICK_MS, type ControllerOptions, type Decision, type MirrorPhase } from './controller.js';

export interface ForecastOptions {
  /** Bytes to be copied, bytes per second that the target takes, and that guests make dirty of what is clean. */
  readonly bytes: number;
  readonly copyRate: number;
  readonly dirtyRate: number;
  /** Bytes per second that guests write, which is less than the granules that they make dirty. Default: as much. */
  readonly writeRate?: number | undefined;
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

/** What guests write is taken to be spread over what is copied: where that is dirty already, it costs nothing. */
export function forecast({ bytes, copyRate, dirtyRate, writeRate = dirtyRate, convergence = {} }: ForecastOptions): Forecast {
  const background = inBackground(bytes, copyRate, dirtyRate);
  if (copyRate <= 0) return { background, auto: background, phases: [], guestShare: 1 };
  const controller = new ConvergenceController(convergence, 0);
  const phases: MirrorPhase[] = [];
  let [dirty, written, dirtied, wanted, served, now] = [bytes, 0, 0, 0, 0, 0];
  for (let tick = 0; tick < MAX_TICKS; tick++) {
    const decision: Decision = controller.tick({ nowMs: now, dirty, written, dirtied, guestLatencyMs: 0, targetSilentMs: 0 });
    if (phases.at(-1) !== decision.phase) phases.push(decision.phase);
    if (decision.phase === 'ready') return { background, auto: now, phases, guestShare: wanted === 0 ? 1 : served / wanted };
    const seconds = TICK_MS / 1000;
    const through = decision.copyMode === 'write-blocking';
    const demand = seconds * (through ? writeRate : dirtyRate * Math.max(0, 1 - dirty / bytes));
    const admitted = Math.min(demand, (decision.guestRate ?? Infinity) * seconds, through ? copyRate * seconds : Infinity);
    const copied = Math.min(dirty, copyRate * seconds - (through ? admitted : 0));
    dirty += (through ? 0 : admitted) - copied;
    written += copied + (through ? admitted : 0);
    dirtied += admitted;
    wanted += demand;
    served += admitted;
    now += TICK_MS;
  }
  return { background, auto: null, phases, guestShare: served / wanted };
}

/** Guests make dirty again what has been copied, the more of it the more is clean. */
function inBackground(bytes: number, copyRate: number, dirtyRate: number): number | null {
  if (bytes === 0) return 0;
  if (dirtyRate >= copyRate) return null;
  if (dirtyRate <= 0) return bytes / copyRate * 1000;
  return bytes / dirtyRate * Math.log(copyRate / (copyRate - dirtyRate)) * 1000;
}
