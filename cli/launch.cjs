'use strict';
/**
 * What the launchers share. CommonJS, since an ES module starts the thread pool while it loads, and then the pool's size
 * is fixed. The program runs in this very process: a signal sent to it, kill -9 too, reaches the engine.
 */
const { existsSync, realpathSync } = require('node:fs');
const { dirname, join } = require('node:path');
const { budgetOf, loadCompiled, optimiseLate } = require('./compiled.cjs');

/** Newer Nodes keep compiled code; in the user's own cache, since a shared directory would be a way in. False on older ones. */
function enableCompileCache() {
  const { enableCompileCache: enable } = require('node:module');
  if (enable === undefined) return false;
  const cache = process.env.XDG_CACHE_HOME || (process.env.HOME && join(process.env.HOME, '.cache'));
  if (cache) enable(join(cache, 'quiesce'));
  return true;
}

/**
 * Runs dist/cli/`entry`.cjs of this package as `name`. `threads`: how many host calls are in flight at most, unless the
 * user says otherwise.
 */
exports.launch = ({ entry, name, threads }) => {
  process.env.UV_THREADPOOL_SIZE ||= String(threads);
  const budget = optimiseLate(budgetOf(entry, process.argv.slice(2)));
  const root = dirname(dirname(realpathSync(__filename)));
  const main = join(root, 'dist', 'cli', `${entry}.cjs`);
  const complain = (text) => {
    process.stderr.write(`${name}: ${text}\n`);
    process.exitCode = 1;
  };
  if (!existsSync(main)) return complain(`not built yet, ${main} is missing: run 'npm ci && npm run build' in ${root}`);
  try {
    if (enableCompileCache()) require(main);
    else loadCompiled(main, { budget });
  } catch (error) {
    complain(`${main} cannot be loaded: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    if (process.env.QUIESCE_DEBUG === '1') process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`);
  }
};
