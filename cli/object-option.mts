/** `--object`: makes an object, or prints what could be made. */
import { BlockError, objectHelp, parseKeyvalOrHelp, visitText, type ObjectModel } from '../src/index.js';
import { print } from './program.mjs';

const BAD_ID = "Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter.";

/** True where help was asked for: then that is all. */
export function addObject(objects: ObjectModel, text: string): boolean {
  const options = visitText('ObjectOptions', text, 'qom-type');
  if (options !== null && !/^[A-Za-z]/.test(options['id'] as string)) throw new BlockError('INVALID_ARGUMENT', BAD_ID);
  if (options !== null) objects.add(options);
  else print(objectHelp(parseKeyvalOrHelp(text, 'qom-type').tree['qom-type'] as string | undefined));
  return options === null;
}
