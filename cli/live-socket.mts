/** Unix sockets that a server is about to take. */
import { connect } from 'node:net';
import { BlockError } from '../src/index.js';

/** Throws BUSY where somebody listens there; what a dead server left behind is no obstacle. */
export async function refuseLiveSocket(path: string, whose: string): Promise<void> {
  if (await listens(path)) throw new BlockError('BUSY', `${whose} is at '${path}' already`);
}

function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // EAGAIN: it listens, and many wait
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'));
  });
}
