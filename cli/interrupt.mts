/** Signals and a closed standard output, turned into one AbortSignal that commands obey. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { BlockError } from '../src/index.js';

type EndingSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

export interface Interrupt {
  readonly signal: AbortSignal;
  /** The shell's exit code for what came (130 for SIGINT, 141 for a closed pipe), or undefined where nothing did. */
  readonly exitCode: () => number | undefined;
}

/** The first signal asks the command to end cleanly; the second calls `endNow`. */
export function listenForInterrupt(endNow: (exitCode: number) => void): Interrupt {
  const controller = new AbortController();
  let exitCode: number | undefined;
  const interrupt = (code: number, why: string): void => {
    if (exitCode !== undefined) return endNow(code);
    exitCode = code;
    controller.abort(new BlockError('CANCELLED', why));
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // who ignores a signal (nohup, a shell's background job) means it; a handler would undo that
    if (!isIgnored(name)) process.on(name, () => interrupt(128 + constants.signals[name], `interrupted by ${name}`));
  }
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' && exitCode === undefined) interrupt(128 + constants.signals.SIGPIPE, 'standard output was closed');
  });
  return { signal: controller.signal, exitCode: () => exitCode };
}

function isIgnored(name: EndingSignal): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
    return (BigInt(`0x${mask}`) >> BigInt(constants.signals[name] - 1)) % 2n === 1n;
  } catch {
    return false;
  }
}
