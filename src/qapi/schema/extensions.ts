/** What is ours: names begin with `x-quiesce-`. The notation is told in ../notation.ts. */
export const EXTENSIONS = `
`;
