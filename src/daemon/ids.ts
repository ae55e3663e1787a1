/** Identifiers that users give: letters, digits, `-`, `.`, `_`, a letter first. */
export function isWellFormedId(id: string): boolean {
  return /^[A-Za-z][A-Za-z0-9._-]*$/.test(id);
}
