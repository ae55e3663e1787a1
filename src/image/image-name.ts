/** Names of images that say more than a path: `json:{…}`, `driver=…`, `blkdebug:CONF:FILE`, `nbd:…`, `file:…`. */
import { promises as files } from 'node:fs';
import { parseKeyval } from '../base/keyval.js';
import { isNbdName } from '../nbd/name.js';
import { parseJson } from '../qobject/parser.js';
import { isDict } from '../qobject/value.js';
import { flattenOptions, invalid, type FlatOptions, type OptionTree } from './options.js';
import { isFileName, isOptionName } from './tree-name.js';

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
  const found = await files.stat(name).catch(() => null); // opening tells the error
  return found?.isBlockDevice() === true || found?.isCharacterDevice() === true;
}

/** The tree that is written out in a name; null where the name is that of a file or a protocol. */
export function treeInName(name: string): OptionTree | null {
  if (name.startsWith('json:')) return jsonTree(name.slice('json:'.length));
  return isOptionName(name) ? parseKeyval(name) as OptionTree : null;
}

/** The options of the whole tree; without a driver, where the format is to be found out. */
export async function imageOptions(name: string): Promise<FlatOptions> {
  const tree = treeInName(name);
  if (tree !== null) return flattenOptions(tree);
  return new Map([...await protocolOptions(name)].map(([key, value]) => [`file.${key}`, value]));
}

/** The path of the file that a name leads to in the end: the name itself, where it is no tree; null where it leads to none. */
export async function fileInName(name: string): Promise<string | null> {
  if (isNbdName(name)) return null;
  if (isFileName(name)) return name.startsWith('file:') ? name.slice('file:'.length) : name;
  const options = [...await imageOptions(name)].find(([key]) => /^(?:(?:file|image|raw|test)\.)*filename$/.test(key));
  const found = options === undefined ? null : String(options[1]);
  return found?.startsWith('blkdebug:') === true ? fileInName(found.replace(/^blkdebug:[^:]*:/, '')) : found;
}

function jsonTree(text: string): OptionTree {
  const { value, error } = { value: undefined, error: undefined, ...parseJson(text) };
  if (error !== undefined) throw invalid(`Could not parse the JSON options: ${error}`);
  if (!isDict(value)) throw invalid('Invalid JSON object given');
  return value as OptionTree;
}
