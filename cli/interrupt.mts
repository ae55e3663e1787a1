/** Signals and a closed standard output, turned into one AbortSignal that commands obey. */
import { constants } from 'node:os';
import { BlockError } from '../src/index.js';

interface Interrupt {
  readonly signal: AbortSignal;
  /** The shell's exit code for what came (130 for SIGINT, 141 for a closed pipe), or undefined where nothing did. */
  readonly exitCode: () => number | undefined;
}

let patient = false;

/** From here on no second signal cuts the end short: others would pay for it. */
export function endInOrder(): void {
  patient = true;
}

/** The first signal asks the command to end cleanly; the second calls `endNow`, unless `endInOrder` was called. */
export function listenForInterrupt(endNow: (exitCode: number) => void): Interrupt {
  const controller = new AbortController();
  let exitCode: number | undefined;
  const interrupt = (code: number, why: string): void => {
    if (exitCode !== undefined) return patient ? undefined : endNow(code);
    exitCode = code;
    controller.abort(new BlockError('CANCELLED', why));
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => interrupt(128 + constants.signals[name], `interrupted by ${name}`));
  }
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' && exitCode === undefined) interrupt(128 + constants.signals.SIGPIPE, 'standard output was closed');
  });
  return { signal: controller.signal, exitCode: () => exitCode };
}
