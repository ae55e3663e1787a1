/** The log of `quiesce daemon`: JSON lines on standard error, each written before the call returns. */
import type { Logger } from 'pino';

export async function openLog(): Promise<Logger> {
  const { destination, pino } = await import('pino');
  const stream = destination({ fd: 2, sync: true });
  // nobody reads the log any more: the disks matter more
  stream.on('error', () => undefined);
  return pino({ name: 'quiesce' }, stream);
}
