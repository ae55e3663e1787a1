'use strict';
/**
 * Loads the bundle with its code compiled ahead: reading and compiling a few hundred kilobytes of JavaScript costs more
 * than most commands take. build.js keeps what V8 compiled beside each file; V8 itself takes it only if it is of its
 * own version and flags (so those that optimise late have code of their own), and otherwise compiles as usual. Newer Nodes do the same for every module (module.enableCompileCache).
 */
const { readFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { dirname, join } = require('node:path');
const vm = require('node:vm');

/** Where the compiled code of `file` is kept: code of another Node, or of another processor, is not even looked at. */
const codePath = (file, budget) => `${file}.${process.version}-${process.arch}${budget === 0 ? '' : `-${budget}`}.code`;

/** V8's own is 132 KiB: a function that has run so many bytes of its code is looked at, whether it should be optimised. */
const BUDGET_OF_MOVERS = 1_000_000;
/** Guests use what a daemon serves for long: it shall not stay slow for seconds. */
const BUDGET_OF_DAEMONS = 350_000;

/**
 * How late a program optimises its code; 0: as V8 does by itself. What moves much data within a second or so and that is
 * all, or in its first seconds, needs the processors for that: V8's optimiser would compete with the I/O for them, and
 * come too late to help. What stays hot for longer is still optimised.
 */
function budgetOf(entry, [command, verb]) {
  if (entry === 'storage-daemon') return BUDGET_OF_DAEMONS;
  if (entry !== 'main') return 0; // its first argument is no command
  if (command === 'daemon') return BUDGET_OF_DAEMONS;
  return command === 'snapshot' || command === 'demo' || (command === 'nbd' && verb === 'copy') ? BUDGET_OF_MOVERS : 0;
}

/** What there is from now on: 0 on a newer Node, which may lack the flag and complain aloud. */
function optimiseLate(budget) {
  if (budget === 0 || Number.parseInt(process.versions.node, 10) > 24) return 0;
  // loading node:v8 costs 5 ms, so only those that gain pay for it
  require('node:v8').setFlagsFromString(`--interrupt-budget=${budget}`);
  return budget;
}

function readIfThere(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** Loads the CommonJS file as `require` would. `budget`: what optimiseLate gave. `onScript(file, script)` hears of each file of the bundle. */
function loadCompiled(main, { budget = 0, onScript = () => {} } = {}) {
  const folder = dirname(main);
  const requireOther = createRequire(main);
  const loaded = new Map();
  const load = (file) => {
    const known = loaded.get(file);
    if (known !== undefined) return known.exports;
    const module = { exports: {} };
    loaded.set(file, module);
    const script = new vm.Script(`(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'utf8')}\n})`, {
      filename: file, cachedData: readIfThere(codePath(file, budget)),
    });
    onScript(file, script);
    script.runInThisContext()(module.exports, requireFrom, module, file, folder);
    return module.exports;
  };
  // all files of the bundle are in one folder; import.cjs is there for what only code that Node loads may do
  const requireFrom = (name) => (name.startsWith('./') && name !== './import.cjs' ? load(join(folder, name)) : requireOther(name));
  return load(main);
}

module.exports = { budgetOf, codePath, loadCompiled, optimiseLate };
