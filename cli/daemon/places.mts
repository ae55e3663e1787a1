/** Where a user's daemon keeps its things. */
import { mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { wrapHostError } from '../../src/index.js';

export interface Places {
  readonly qmpSocket: string;
  readonly pidFile: string;
  /** Of the journals of jobs. */
  readonly jobs: string;
}

/** Makes the directories, for this user alone. */
export function makePlaces(): Places {
  const { state: stateHome, runtime } = parents();
  const state = privateDirectory(stateHome);
  privateDirectory(runtime);
  return { qmpSocket: qmpSocketPath(), pidFile: path.join(state, 'daemon.pid'), jobs: path.join(state, 'jobs') };
}

/** Where the daemon of this user listens, if there is one. */
export function qmpSocketPath(): string {
  return path.join(parents().runtime, 'quiesce', 'qmp.sock');
}

function parents(): { readonly state: string; readonly runtime: string } {
  const { XDG_STATE_HOME, XDG_RUNTIME_DIR } = process.env;
  const state = XDG_STATE_HOME || path.join(os.homedir(), '.local', 'state');
  return { state, runtime: XDG_RUNTIME_DIR || state };
}

function privateDirectory(parent: string): string {
  const directory = path.join(parent, 'quiesce');
  try {
    mkdirSync(parent, { recursive: true });
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw wrapHostError(error, `could not make '${directory}'`);
  }
  return directory;
}
