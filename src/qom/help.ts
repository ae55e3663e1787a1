/** What `--object help` and `--object TYPE,help` print. */
import { allTypes, findType, isA, listProperties } from './types.js';

export function objectHelp(type: string | undefined): string {
  if (type === undefined || findType(type) === undefined) {
    const made = [...allTypes()].filter(({ name, abstract }) => !abstract && isA(name, 'user-creatable'));
    return `List of user creatable objects:\n${made.map(({ name }) => `  ${name}\n`).sort().join('')}`;
  }
  const lines = listProperties(type).filter(({ writable }) => writable).map((property) => `  ${property.name}=<${property.type}>\n`);
  return lines.length === 0 ? `There are no options for ${type}.\n` : `${type} options:\n${lines.sort().join('')}`;
}
