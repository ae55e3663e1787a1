'use strict';
/** Preloaded (`node -r`) into a process under test: at its exit, its peak memory goes to the file that QUIESCE_BENCH_RSS names. */
const { readFileSync, writeFileSync } = require('node:fs');

process.on('exit', () => {
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  writeFileSync(process.env.QUIESCE_BENCH_RSS, peak[1]);
});
