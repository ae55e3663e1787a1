/** The log of `quiesce daemon`: JSON lines on standard error, each written before the call returns. */
import type { Logger } from 'pino';

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
type LogLevel = typeof LOG_LEVELS[number];

export async function openLog(level: LogLevel): Promise<Logger> {
  const { destination, pino } = await import('pino');
  const stream = destination({ fd: 2, sync: true });
  // nobody reads the log any more: the disks matter more
  stream.on('error', () => undefined);
  return pino({ name: 'quiesce', level }, stream);
}
