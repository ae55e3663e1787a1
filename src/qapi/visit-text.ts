import { BlockError } from '../base/errors.js';
import { parseKeyvalOrHelp } from '../base/keyval.js';
import { parseJson } from '../qobject/parser.js';
import type { JsonDict } from '../qobject/value.js';
import { schema } from './schema.js';
import { visit } from './visit.js';

/**
 * The argument of an option such as `--blockdev`: JSON where it begins with a brace, `key=value,…` otherwise, of which the first may go
 * without its key. Null: help was asked for. Throws a BlockError INVALID_ARGUMENT in QEMU's words.
 */
export function visitText(type: string, text: string, impliedKey?: string): JsonDict | null {
  if (text.startsWith('{')) {
    const item = parseJson(text);
    if (item.error !== undefined) throw new BlockError('INVALID_ARGUMENT', item.error);
    return visit(schema(), type, item.value, 'json') as JsonDict;
  }
  const { tree, help } = parseKeyvalOrHelp(text, impliedKey);
  return help ? null : visit(schema(), type, tree, 'keyval') as JsonDict;
}
