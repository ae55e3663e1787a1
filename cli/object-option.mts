/** `--object`: makes an object, or prints what could be made. */
import { badId, isWellFormedId, objectHelp, parseKeyvalOrHelp, visitText, type ObjectModel } from '../src/index.js';
import { print } from './program.mjs';

/** True where help was asked for: then that is all. */
export function addObject(objects: ObjectModel, text: string): boolean {
  const options = visitText('ObjectOptions', text, 'qom-type');
  if (options !== null && !isWellFormedId(options['id'] as string)) throw badId();
  if (options !== null) objects.add(options);
  else print(objectHelp(parseKeyvalOrHelp(text, 'qom-type').tree['qom-type'] as string | undefined));
  return options === null;
}
