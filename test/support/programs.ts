/** Our programs under the names of those they stand in for, and servers that are ended with their test. */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { appears } from './listening.js';
import { kill, nbdLauncher, start, storageDaemonLauncher } from './run.js';

const LAUNCHERS = { 'qemu-nbd': nbdLauncher, 'qemu-storage-daemon': storageDaemonLauncher } as const;

/** A symlink in `folder`, called as the peer is: what both print can then be compared as it stands. */
export function standIn(name: keyof typeof LAUNCHERS, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const link = join(folder, name);
  if (!existsSync(link)) symlinkSync(LAUNCHERS[name], link);
  return link;
}

/** Runs `section` while a server runs in the foreground, whose socket or file at `path` shows that it is ready. */
export async function whileRunning<T>(binary: string, args: readonly string[], path: string, section: () => Promise<T>): Promise<T> {
  const child = start(binary, args);
  try {
    await appears(path);
    return await section();
  } finally {
    await kill(child, 'SIGTERM');
  }
}

export async function disappears(path: string): Promise<void> {
  await until(() => !existsSync(path), `${path} does not disappear`);
}

export async function until(holds: () => boolean | Promise<boolean>, otherwise: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!await holds()) {
    if (Date.now() > deadline) throw new Error(otherwise);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}
