/** The engine's progress as bars: one per phase. */
import type { OnProgress } from '../src/index.js';
import type { Progress } from './progress.mjs';

const LABELS = { receive: 'receiving RAM state', store: 'storing RAM state', send: 'sending RAM state' } as const;

export function progressOf(progress: Progress): OnProgress {
  let phase: string | null = null;
  return (next, done, total) => {
    if (phase !== next) progress.start(total, LABELS[next]);
    phase = next;
    progress.update(done);
  };
}
