'use strict';
/**
 * Loads the bundle with its code compiled ahead: reading and compiling a few hundred kilobytes of JavaScript costs more
 * than most commands take. build.js keeps what V8 compiled beside each file; V8 itself takes it only if it is of its
 * own version and flags (so brief programs have code of their own), and otherwise compiles as usual. Newer Nodes do the same for every module (module.enableCompileCache).
 */
const { readFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { dirname, join } = require('node:path');
const vm = require('node:vm');

/** Where the compiled code of `file` is kept: code of another Node, or of another processor, is not even looked at. */
const codePath = (file, brief) => `${file}.${process.version}-${process.arch}${brief ? '-brief' : ''}.code`;

/**
 * Whether these arguments of `quiesce` move much data within a second or so, and that is all. V8's optimiser would then
 * compete with the I/O for the processors and come too late to help.
 */
const isBrief = ([command, verb]) => command === 'snapshot' || command === 'demo' || (command === 'nbd' && verb === 'copy');

/** For those: functions that stay hot for longer are still optimised. False on a newer Node, which may lack the flag and complain aloud. */
function optimiseLate() {
  if (Number.parseInt(process.versions.node, 10) > 24) return false;
  // Loading node:v8 costs 5 ms, so only those that gain pay for it.
  require('node:v8').setFlagsFromString('--interrupt-budget=1000000');
  return true;
}

function readIfThere(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** Loads the CommonJS file as `require` would. `brief`: after optimiseLate. `onScript(file, script)` hears of each file of the bundle. */
function loadCompiled(main, { brief = false, onScript = () => {} } = {}) {
  const folder = dirname(main);
  const requireOther = createRequire(main);
  const loaded = new Map();
  const load = (file) => {
    const known = loaded.get(file);
    if (known !== undefined) return known.exports;
    const module = { exports: {} };
    loaded.set(file, module);
    const script = new vm.Script(`(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'utf8')}\n})`, {
      filename: file, cachedData: readIfThere(codePath(file, brief)),
    });
    onScript(file, script);
    script.runInThisContext()(module.exports, requireFrom, module, file, folder);
    return module.exports;
  };
  // all files of the bundle are in one folder; import.cjs is there for what only code that Node loads may do
  const requireFrom = (name) => (name.startsWith('./') && name !== './import.cjs' ? load(join(folder, name)) : requireOther(name));
  return load(main);
}

module.exports = { codePath, isBrief, loadCompiled, optimiseLate };
