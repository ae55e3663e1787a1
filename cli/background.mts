/**
 * Going to the background. Node cannot fork, so the program starts itself once more, detached, and waits until that one
 * says that it is ready; what the child complains about meanwhile comes out of the parent.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { complain, writeNow } from './program.mjs';

/** Tells the child what it is. */
const MARK = 'QUIESCE_BACKGROUND';
/** Descriptor 3 may be a listening socket that came with the process. */
const READY_FD = 4;

/** Whether this process is the one in the background. */
export const isBackground = process.env[MARK] === '1';
delete process.env[MARK];

/** Starts this very command line in the background. Resolves to the exit code once the child is ready or has ended. */
export function startInBackground(passSocket: boolean): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    env: { ...process.env, [MARK]: '1' },
    stdio: ['ignore', 'ignore', 'pipe', passSocket ? 3 : 'ignore', 'pipe'],
  });
  return new Promise((resolve) => {
    let ready = false;
    child.stdio[READY_FD]?.once('data', () => { ready = true; });
    child.stderr?.on('data', (text: Buffer) => writeNow(2, text.toString()));
    child.once('error', (error) => {
      complain(`cannot go to the background: ${error.message}`);
      resolve(1);
    });
    // the child lets go of standard error when it is ready, and when it ends
    child.once('close', () => resolve(ready ? 0 : 1));
    const letGo = (): void => {
      if (!ready) return;
      child.unref();
      resolve(0);
    };
    child.stderr?.once('close', letGo);
    child.stdio[READY_FD]?.once('close', letGo);
  });
}

/** In the background: all is set up. Standard error leads nowhere from here on. */
export function tellReady(): void {
  if (!isBackground) return;
  writeNow(READY_FD, '.');
  closeSync(READY_FD);
  closeSync(2);
  // the lowest free descriptor: 2 again
  openSync('/dev/null', 'w');
}
