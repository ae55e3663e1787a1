/** How a process of ours ends: nothing else may end it. */

/** Ends the process even if something still runs, after standard output is written. */
export function endProcess(code: number): void {
  process.stdout.write('', () => process.exit(code));
}

/** Ends it without waiting for anything. */
export function endNow(code: number): void {
  process.exit(code);
}
