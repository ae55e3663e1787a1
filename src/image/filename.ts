/**
 * What QEMU calls a node: the plain name that would open the same tree where there is one, else `json:` and the options
 * that would. Worked out when asked for, since children come and go.
 */
import type { BlockNode } from '../block/node.js';
import { printJson } from '../qobject/print.js';
import type { OptionTree } from './options.js';

export function nodeFilename(node: BlockNode): string {
  return plainName(node) ?? `json:${printJson(fullOptions(node))}`;
}

/** The name without options, or null where options are needed. */
export function plainName(node: BlockNode): string | null {
  const { driver, origin } = node;
  if (origin?.plainName !== undefined) return origin.plainName;
  if (driver.kind !== 'format') return null;
  const primary = driver.children?.find(({ role }) => role !== 'backing')?.node;
  if (primary === undefined || primary.driver.kind === 'format' || Object.keys(origin?.strong ?? {}).length > 0 || backingOverridden(node)) return null;
  return plainName(primary);
}

/** The options that open the tree below a node again. */
export function fullOptions(node: BlockNode): OptionTree {
  const { driver, origin } = node;
  const options: Record<string, OptionTree[string]> = { ...origin?.strong as OptionTree | undefined, driver: driver.formatName };
  if (origin?.filename !== undefined) options['filename'] = origin.filename;
  const overridden = backingOverridden(node);
  const list: OptionTree[] = [];
  for (const child of node.children) {
    if (child === driver.backing && !overridden) continue;
    if (child.edge.startsWith('children.')) list.push(fullOptions(child.node));
    else options[child.edge] = fullOptions(child.node);
  }
  if (list.length > 0) options['children'] = list;
  if (overridden && node.backing === null) options['backing'] = null;
  return options;
}

/** True where what lies below is not what the image itself asks for. */
function backingOverridden(node: BlockNode): boolean {
  const wanted = node.origin?.autoBacking ?? null;
  return node.backing === null ? wanted !== null : wanted === null || nodeFilename(node.backing) !== wanted;
}
