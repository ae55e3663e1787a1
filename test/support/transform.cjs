'use strict';
/**
 * swc, which only strips the types; and what a module asks the global object for, it asks once. Jest runs tests in a vm context, where
 * each look at a global is a call through its sandbox: work that handles bytes takes three times as long by that.
 */
const swc = require('@swc/jest');

const GLOBALS = [
  'AbortController', 'AbortSignal', 'Array', 'ArrayBuffer', 'BigInt', 'BigUint64Array', 'Boolean', 'Buffer', 'DataView', 'Date', 'Error', 'Float64Array', 'Infinity', 'Int32Array',
  'JSON', 'Map', 'Math', 'NaN', 'Number', 'Object', 'Promise', 'RangeError', 'RegExp', 'Set', 'String', 'Symbol', 'TypeError', 'Uint16Array', 'Uint32Array', 'Uint8Array', 'WeakMap',
  'clearImmediate', 'clearTimeout', 'performance', 'process', 'queueMicrotask', 'setImmediate', 'setTimeout',
];

/** Used in the code, and nothing of the module's own. */
function isAsked(name, code) {
  if (!code.includes(name)) return false;
  const own = new RegExp(`^import\\s[^;'"]*\\b${name}\\b|\\b(?:class|function|const|let|var)\\s+${name}\\b`, 'm');
  return new RegExp(`\\b${name}\\b`).test(code) && !own.test(code);
}

/** On the first line, so that no line moves. */
function askOnce(result) {
  const names = GLOBALS.filter((name) => isAsked(name, result.code));
  return names.length === 0 ? result : { ...result, code: `const { ${names.join(', ')} } = globalThis;${result.code}` };
}

exports.createTransformer = (options) => {
  const { process: strip, processAsync: stripLater, getCacheKey, ...rest } = swc.createTransformer(options);
  return {
    ...rest,
    process: (...args) => askOnce(strip(...args)),
    processAsync: async (...args) => askOnce(await stripLater(...args)),
    getCacheKey: (...args) => `${getCacheKey(...args)}-${GLOBALS.length}`,
  };
};
