/** FILE with --image-opts: `driver=…,file.filename=…`; a first word without a key is the `file`. */
import { parseQemuOpts, type OptionTree } from '../../src/index.js';

export function parseImageOptions(text: string): OptionTree {
  return Object.fromEntries(parseQemuOpts(text, { impliedKey: 'file' }).values);
}
