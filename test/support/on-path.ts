import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** Where a program is; system folders count too, since a user's PATH may lack them. */
export function findOnPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':').filter((folder) => folder !== ''), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
