import { promises as files } from 'node:fs';
import { BlockError } from '../base/errors.js';
import { openFileDriver } from '../protocol/file.js';
import { FileDriver } from '../protocol/file-driver.js';
import type { DriverContext, DriverDefinition, OpenedDriver, ReopenContext, ReopenedDriver } from './drivers.js';
import { invalid } from './options.js';

export const FILE_DRIVERS: readonly DriverDefinition[] = (['file', 'host_device'] as const).map((name) => ({
  name,
  protocol: true,
  open: (context) => openFile(name, context),
  mutable: ['x-check-cache-dropped'],
  reopen: reopenFile,
}));

function reopenFile({ node, common: { readOnly, autoReadOnly, direct }, options }: ReopenContext): ReopenedDriver {
  options.bool('x-check-cache-dropped');
  const { driver } = node;
  if (!(driver instanceof FileDriver) || driver.prepareAccess === undefined) return {};
  return { prepare: () => driver.prepareAccess!({ readOnly, later: autoReadOnly && !readOnly, direct }) };
}

async function openFile(kind: 'file' | 'host_device', { options, common, objectType }: DriverContext): Promise<OpenedDriver> {
  const path = options.string('filename')!; // asked for before the node had its name
  const locking = options.oneOf('locking', ['auto', 'on', 'off'] as const, 'auto');
  // How QEMU talks to the host: one way here, whatever is asked for
  const aio = options.oneOf('aio', ['threads', 'native', 'io_uring'] as const);
  options.number('aio-max-batch');
  options.bool('drop-cache');
  options.bool('x-check-cache-dropped');
  refusePrManager(options.string('pr-manager'), objectType);
  if (aio === 'native' && !common.direct) throw invalid('aio=native was specified, but it requires cache.direct=on, which was not specified.');
  await refuseWrongType(kind, path, common.readOnly || common.autoReadOnly);
  const writeLater = common.autoReadOnly && !common.readOnly;
  const driver = await openFileDriver(path, {
    readOnly: common.readOnly || writeLater, writeLater, followUsers: true, direct: common.direct, locking,
  });
  return { driver, name: path, origin: { plainName: path, filename: path } };
}

/** There are none here: their objects cannot be made. */
function refusePrManager(id: string | undefined, objectType: DriverContext['objectType']): void {
  if (id === undefined) return;
  throw invalid(objectType?.(id) === undefined ? `No persistent reservation manager with id '${id}'` : `Object with id '${id}' is not a persistent reservation manager`);
}

async function refuseWrongType(kind: 'file' | 'host_device', path: string, readOnly: boolean): Promise<void> {
  const found = await files.stat(path).catch(() => null); // opening tells the error
  if (found === null) return;
  if (found.isDirectory() && !readOnly) throw new BlockError('INVALID_ARGUMENT', `Could not open '${path}': Is a directory`, { node: path, errno: 'EISDIR' });
  if (kind === 'file' && !found.isFile()) throw invalid(`'file' driver requires '${path}' to be a regular file`);
  if (kind === 'host_device' && !found.isBlockDevice() && !found.isCharacterDevice()) {
    throw invalid(`'host_device' driver requires '${path}' to be either a character or block device`);
  }
}
