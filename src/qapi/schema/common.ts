/** What several topics use. The notation is told in ../notation.ts. */
export const COMMON = `
struct q_empty {}
alternate StrOrNull { s: str, n: null }
enum OnOffAuto { auto, on, off }
`;
