import { basename } from 'node:path';
import { systemClock, type Clock } from '../base/clock.js';
import type { LiveTrace } from './live-trace.js';
import type { LoadedTrace } from './load.js';
import { TraceModel } from './model.js';

/** As often as what came is shown. */
const RENEW_MS = 1000;

/** Shows a trace that goes on, in bounded memory, until it ends or the signal ends it; what came until then is the result. */
export async function loadLiveTrace(
  live: LiveTrace, name: string, renew: (trace: LoadedTrace) => void, signal: AbortSignal, clock: Clock = systemClock,
): Promise<LoadedTrace> {
  const now = (): LoadedTrace => {
    const { table, findings } = live.now();
    return { model: new TraceModel(table), name: basename(name), records: live.records, remarks: [], findings };
  };
  renew(now());
  const ended = new AbortController();
  let changed = false;
  const telling = (async () => {
    while (!ended.signal.aborted) {
      await clock.sleep(RENEW_MS, ended.signal);
      if (changed) renew(now());
      changed = false;
    }
  })();
  try {
    await live.read(() => { changed = true; }, signal);
  } finally {
    ended.abort();
    await telling;
  }
  return now();
}
