/**
 * `npm test`: the programs that interop tests need, the build, then type check, lint and all tests. Ends with the line
 * `N passed, N failed`. Arguments go to jest: `npm test -- test/unit`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { filesToRepeat, tally } from './second-chance.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const inCi = process.env.CI === 'true';

/** Debian package → a program of it. */
const PEERS = {
  'qemu-utils': 'qemu-img', 'qemu-system-x86': 'qemu-system-x86_64', 'qemu-system-common': 'qemu-storage-daemon', fio: 'fio', nbdkit: 'nbdkit',
  'libnbd-bin': 'nbdinfo', blktrace: 'blkparse', iowatcher: 'iowatcher', openssl: 'openssl', chromium: 'chromium', tmux: 'tmux',
};

function run(command, args, env = {}, timeout) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env }, timeout });
  return result.status === 0;
}

function onPath(program) {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].some((folder) => existsSync(join(folder, program)));
}

function missingPackages() {
  return Object.keys(PEERS).filter((name) => !onPath(PEERS[name]));
}

/** As root the missing programs are installed; else they are named, and their tests show as skipped (or fail in CI). */
function installPeers() {
  const missing = missingPackages();
  if (missing.length === 0) return true;
  if (process.getuid() === 0 && onPath('apt-get')) {
    console.log(`Installing what the interop tests need: ${missing.join(', ')}`);
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    run('apt-get', ['update', '-qq'], env);
    run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], env);
  }
  const absent = missingPackages();
  if (absent.length === 0) return true;
  console.log(`Missing for the interop tests: 'apt-get install --no-install-recommends ${absent.join(' ')}' as root`);
  return !inCi;
}

/** The end that CI puts to all of it, less what comes before and after. */
const ALL_MS = 28 * 60_000;
const LEAST_MS = 60_000;

function jest(args, limitMs) {
  const report = join(mkdtempSync(join(tmpdir(), 'quiesce-report-')), 'jest.json');
  try {
    const options = `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --disable-warning=ExperimentalWarning`.trim();
    const bin = join('node_modules', 'jest', 'bin', 'jest.js');
    const ok = run(process.execPath, [bin, '--json', `--outputFile=${report}`, ...args], { NODE_OPTIONS: options }, limitMs);
    return { ok, report: existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : null };
  } finally {
    rmSync(join(report, '..'), { recursive: true, force: true });
  }
}

/** All tests; those that may fail by accident get a second chance. */
function test(args) {
  // more than processors: many tests wait for peers and for time to pass
  const first = jest(['--maxWorkers=3', ...args]);
  const files = filesToRepeat(first.report, root);
  if (files.length === 0) return tally(first, null, root);
  console.log(`Once more, alone: ${files.join(', ')}`);
  const again = jest(['--maxWorkers=1', '--runTestsByPath', ...files], inCi ? Math.ceil(Math.max(LEAST_MS, ALL_MS - performance.now())) : undefined);
  return tally(first, again, root);
}

function main(args) {
  const steps = [
    { name: 'programs', counts: false, step: installPeers },
    { name: 'build', counts: false, step: () => run(process.execPath, ['build.js', '--if-stale']) },
    { name: 'type check', counts: true, step: () => ['.', 'src/viewer/web'].every((project) => run(join('node_modules', '.bin', 'tsc'), ['-p', project])) },
    { name: 'lint', counts: true, step: () => run(join('node_modules', '.bin', 'oxlint'), ['--type-aware', '--deny-warnings']) },
  ];
  let passed = 0;
  let failed = 0;
  for (const { name, counts, step } of steps) {
    const ok = step();
    console.log(`${ok ? 'ok' : 'FAILED'}: ${name}`);
    // preparations count only where they fail
    if (!ok) failed++;
    else if (counts) passed++;
  }
  const tests = test(args);
  for (const file of tests.unsteady) console.log(`unsteady: ${file}: passed when run alone (its failure is told above)`);
  passed += tests.passed;
  failed += tests.failed;
  const skipped = tests.skipped === 0 ? '' : `, ${String(tests.skipped)} skipped`;
  console.log(`${passed} passed, ${failed} failed${skipped}`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = main(process.argv.slice(2));
