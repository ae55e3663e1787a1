'use strict';
/**
 * What the launchers share. CommonJS, since an ES module starts the thread pool while it loads, and then the pool's size
 * is fixed. The program runs in this very process: a signal sent to it, kill -9 too, reaches the engine.
 */
const { existsSync, realpathSync } = require('node:fs');
const { dirname, join } = require('node:path');

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
 * user says otherwise. `brief`: it moves much data within a second or so, and is over.
 */
exports.launch = ({ entry, name, threads, brief }) => {
  process.env.UV_THREADPOOL_SIZE ||= String(threads);
  // In a short run V8's optimiser would compete with the I/O for the processors and come too late to help. Functions
  // that stay hot for longer are still optimised. A Node that drops the flag would complain aloud.
  // Loading node:v8 costs 5 ms, so only those that gain pay for it.
  if (brief && Number.parseInt(process.versions.node, 10) <= 24) require('node:v8').setFlagsFromString('--interrupt-budget=1000000');

  const root = dirname(dirname(realpathSync(__filename)));
  const main = join(root, 'dist', 'cli', `${entry}.cjs`);
  const complain = (text) => {
    process.stderr.write(`${name}: ${text}\n`);
    process.exitCode = 1;
  };
  if (!existsSync(main)) return complain(`not built yet, ${main} is missing: run 'npm ci && npm run build' in ${root}`);
  try {
    if (enableCompileCache()) require(main);
    else require('./compiled.cjs').loadCompiled(main);
  } catch (error) {
    complain(`${main} cannot be loaded: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    if (process.env.QUIESCE_DEBUG === '1') process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`);
  }
};
