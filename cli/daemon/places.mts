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
  const { XDG_STATE_HOME: stateHome, XDG_RUNTIME_DIR: runtime } = process.env;
  const state = privateDirectory(stateHome || path.join(os.homedir(), '.local', 'state'));
  const sockets = runtime ? privateDirectory(runtime) : state;
  return { qmpSocket: path.join(sockets, 'qmp.sock'), pidFile: path.join(state, 'daemon.pid'), jobs: path.join(state, 'jobs') };
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
