/** The public API: the only file that the CLI, the interop tests and the benchmarks may import. */
export { BlockError, errnoOf, messageOf, type BlockErrorDetails, type ErrorCode } from './base/errors.js';
export { formatSize, parseSize } from './base/bytes.js';
