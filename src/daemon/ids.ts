import { BlockError } from '../base/errors.js';

/** Identifiers that users give: letters, digits, `-`, `.`, `_`, a letter first. */
export function isWellFormedId(id: string): boolean {
  return /^[A-Za-z][A-Za-z0-9._-]*$/.test(id);
}

export function badId(): BlockError {
  return new BlockError('INVALID_ARGUMENT', "Parameter 'id' expects an identifier", {
    hint: "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
  });
}
