/** When a server can be spoken to. The file of a socket appears a moment before its owner listens, and on a busy machine a client gets in between. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether there is a file, and where it is a socket, whether somebody listens to it; asked without being taken for a client. */
export function isThere(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && (!stat.isSocket() || listens(path));
}

const LIST = '/proc/net/unix';

/** The kernel's list of sockets has them by the names that they were bound to: flag 0x10000. */
function listens(path: string): boolean {
  if (!existsSync(LIST)) return true; // another system, without such a list
  const name = path.slice(path.lastIndexOf('/'));
  return readFileSync(LIST, 'latin1').split('\n').some((line) => {
    const [, , , flags, , , , bound = ''] = line.split(/\s+/);
    return flags === '00010000' && (bound === path || (!bound.startsWith('/') && `/${bound}`.endsWith(name)));
  });
}

export async function appears(path: string): Promise<void> {
  for (let tries = 0; tries < 6000; tries++) {
    if (isThere(path)) return;
    await sleep(10);
  }
  throw new Error(`${path} does not appear`);
}
