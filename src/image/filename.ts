/**
 * What QEMU calls a node: the plain name that would open the same tree where there is one, else `json:` and the options
 * that would. Worked out when asked for, since children come and go.
 */
import type { BlockNode } from '../block/node.js';
import { InterceptFilter } from '../filter/intercept.js';
import { printJson } from '../qobject/print.js';
import type { OptionTree } from './options.js';

export function nodeFilename(node: BlockNode): string {
  return new Names().filename(node);
}

/** The name without options, or null where options are needed. */
export function plainName(node: BlockNode): string | null {
  return new Names().plain(node);
}

/** The options that open the tree below a node again. */
export function fullOptions(node: BlockNode): OptionTree {
  return new Names().options(node);
}

/** One look at a graph: each node is worked out once, however many ways lead to it and however long its chain is. */
class Names {
  readonly #filenames = new Map<BlockNode, string>();
  readonly #plain = new Map<BlockNode, string | null>();
  readonly #options = new Map<BlockNode, OptionTree>();

  filename(node: BlockNode): string {
    const known = namesake(node);
    if (known !== null) return this.filename(known);
    return once(this.#filenames, node, () => this.plain(node) ?? `json:${printJson(this.options(node))}`);
  }

  plain(node: BlockNode): string | null {
    return once(this.#plain, node, () => this.#findPlain(node));
  }

  options(node: BlockNode): OptionTree {
    return once(this.#options, node, () => this.#findOptions(node));
  }

  #findPlain(node: BlockNode): string | null {
    const { driver, origin } = node;
    const known = namesake(node);
    if (known !== null) return this.plain(known);
    if (origin?.plainName !== undefined) return origin.plainName;
    if (driver.kind !== 'format') return null;
    const primary = driver.children?.find(({ role }) => role !== 'backing')?.node;
    if (primary === undefined || primary.driver.kind === 'format' || Object.keys(origin?.strong ?? {}).length > 0 || this.#backingOverridden(node)) return null;
    return this.plain(primary);
  }

  #findOptions(node: BlockNode): OptionTree {
    if (node.implicit) return this.options(node.children[0]!.node);
    const { driver, origin } = node;
    const options: Record<string, OptionTree[string]> = { ...origin?.strong as OptionTree | undefined, driver: driver.formatName };
    if (origin?.filename !== undefined) options['filename'] = origin.filename;
    const overridden = this.#backingOverridden(node);
    const list: OptionTree[] = [];
    for (const child of node.children) {
      if (child === driver.backing && !overridden) continue;
      if (child.edge.startsWith('children.')) list.push(this.options(child.node));
      else options[child.edge] = this.options(child.node);
    }
    if (list.length > 0) options['children'] = list;
    if (overridden && node.backing === null) options['backing'] = null;
    return options;
  }

  /** True where what lies below is not what the image itself asks for. */
  #backingOverridden(node: BlockNode): boolean {
    const wanted = node.origin?.autoBacking ?? null;
    return node.backing === null ? wanted !== null : wanted === null || this.filename(node.backing) !== wanted;
  }
}

/** The node that lends its name to one that has none of its own: a filter that a job has put there. */
function namesake(node: BlockNode): BlockNode | null {
  return node.implicit || node.driver instanceof InterceptFilter ? node.children[0]!.node : null;
}

function once<T>(known: Map<BlockNode, T>, node: BlockNode, find: () => T): T {
  const found = known.get(node);
  if (found !== undefined) return found;
  const made = find();
  known.set(node, made);
  return made;
}
