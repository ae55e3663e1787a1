/** FILE with --image-opts: `driver=…,file.filename=…`; a first word without a key is the `file`. */
import { parseQemuOpts, type OptionTree } from '../../src/index.js';

export function parseImageOptions(text: string): OptionTree {
  const { values } = parseQemuOpts(text, { impliedKey: 'file' });
  return unflatten(values);
}

/** Keys with dots become trees; the opener flattens them again, and knows both forms. */
function unflatten(values: ReadonlyMap<string, string>): OptionTree {
  const tree: Record<string, OptionTree[string]> = {};
  for (const [key, value] of values) {
    const path = key.split('.');
    let place = tree;
    for (const name of path.slice(0, -1)) {
      const below = place[name];
      place = place[name] = typeof below === 'object' && below !== null ? { ...below as OptionTree } : {};
    }
    place[path.at(-1)!] = value;
  }
  return tree;
}
