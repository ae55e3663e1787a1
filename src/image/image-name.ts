/** Names of images that say more than a path: `json:{…}`, `blkdebug:CONF:FILE`, `nbd:…`, `file:…`. */
import { stat } from 'node:fs/promises';
import { isNbdName } from '../nbd/name.js';
import { parseJson } from '../qobject/parser.js';
import { isDict } from '../qobject/value.js';
import { flattenOptions, invalid, type FlatOptions, type OptionTree } from './options.js';

/** Protocols whose driver takes the name whole. */
const WHOLE: readonly string[] = ['blkdebug', 'blkverify', 'null-co', 'null-aio'];

/** What the part before a colon is taken for, as in QEMU: only where no slash comes first. */
function protocolIn(name: string): string | null {
  return /^([^:/]*):/.exec(name)?.[1] ?? null;
}

/** The options of the protocol node that a name stands for. */
export async function protocolOptions(name: string): Promise<FlatOptions> {
  if (isNbdName(name)) return new Map([['driver', 'nbd'], ['filename', name]]);
  const protocol = protocolIn(name);
  if (protocol === null) return fileOptions(name);
  if (protocol === 'file' || protocol === 'host_device') return new Map([['driver', protocol], ['filename', name.slice(protocol.length + 1)]]);
  if (WHOLE.includes(protocol)) return new Map([['driver', protocol], ['filename', name]]);
  throw invalid(`Unknown protocol '${protocol}'`);
}

/** The same for a name among options, which has no such prefix. */
export async function fileOptions(name: string): Promise<FlatOptions> {
  return new Map([['driver', await isDevice(name) ? 'host_device' : 'file'], ['filename', name]]);
}

async function isDevice(name: string): Promise<boolean> {
  const found = await stat(name).catch(() => null); // opening tells the error
  return found?.isBlockDevice() === true;
}

/** The options of the whole tree; without a driver, where the format is to be found out. */
export async function imageOptions(name: string): Promise<FlatOptions> {
  if (name.startsWith('json:')) return jsonOptions(name.slice('json:'.length));
  return new Map([...await protocolOptions(name)].map(([key, value]) => [`file.${key}`, value]));
}

function jsonOptions(text: string): FlatOptions {
  const { value, error } = { value: undefined, error: undefined, ...parseJson(text) };
  if (error !== undefined) throw invalid(`Could not parse the JSON options: ${error}`);
  if (!isDict(value)) throw invalid('Invalid JSON object given');
  return flattenOptions(value as OptionTree);
}
