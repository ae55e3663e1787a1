import { promises as files } from 'node:fs';

/** Makes names that were added, renamed or removed in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await files.open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
