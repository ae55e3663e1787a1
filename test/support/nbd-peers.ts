/** NBD servers of other projects, each on a unix socket, stopped by their pid. */
import { spawn, type ChildProcess } from 'node:child_process';
import { rmSync } from 'node:fs';
import { afterEach } from '@jest/globals';
import { isThere } from './listening.js';
import { findOnPath } from './peers.js';

export interface NbdPeer {
  readonly socket: string;
  readonly process: ChildProcess;
  /** Ends it (default SIGTERM) and waits until it is gone. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<void>;
  readonly stderr: () => string;
}

/** The function returned starts a server; all that were started end with their test. */
export function useNbdPeers(): (program: string, args: readonly string[], socket: string) => Promise<NbdPeer> {
  const started: NbdPeer[] = [];
  afterEach(async () => {
    for (const peer of started.splice(0)) await peer.stop('SIGKILL');
  });
  return async (program, args, socket) => {
    rmSync(socket, { force: true });
    const peer = launch(program, args, socket);
    started.push(peer);
    await waitForSocket(peer);
    return peer;
  };
}

/** A qemu-nbd that serves one file until it is stopped. */
export function qemuNbdArgs(socket: string, file: string, ...more: string[]): string[] {
  return ['-f', 'raw', '-t', '-e', '8', '-k', socket, ...more, file];
}

export function nbdkitArgs(socket: string, ...more: string[]): string[] {
  return ['-f', '-U', socket, ...more];
}

function launch(program: string, args: readonly string[], socket: string): NbdPeer {
  const child = spawn(findOnPath(program) ?? program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data: Buffer) => { said = (said + data.toString()).slice(-10_000); });
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  return {
    socket, process: child, stderr: () => said,
    stop: async (signal = 'SIGTERM') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      await gone;
    },
  };
}

async function waitForSocket({ socket, process: child, stderr }: NbdPeer): Promise<void> {
  for (let turns = 0; turns < 500; turns++) {
    if (child.exitCode !== null) throw new Error(`the server ended: ${stderr()}`);
    if (isThere(socket)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the server does not listen: ${stderr()}`);
}
