'use strict';
/**
 * A part of build.js: runs one command of the bundle in FOLDER and keeps what V8 compiled meanwhile for the next start.
 *
 *   node build-code.cjs FOLDER ENTRY ARGS...
 */
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { budgetOf, codePath, loadCompiled, optimiseLate } = require('./cli/compiled.cjs');

const [folder, entry] = process.argv.splice(2, 2);
const budget = optimiseLate(budgetOf(entry, process.argv.slice(2)));
const scripts = new Map();
// at the end, since a function is compiled when it first runs
process.on('exit', () => {
  for (const [file, script] of scripts) writeFileSync(codePath(file, budget), script.createCachedData());
});
loadCompiled(join(folder, `${entry}.cjs`), { budget, onScript: (file, script) => scripts.set(file, script) });
