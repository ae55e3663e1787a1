/**
 * Tests against real peers hang on what else the machine does at the moment. A few files of them that failed are run once more, alone;
 * what is deterministic gets no second chance, nor does a run that is lost anyhow.
 */
const MAY_BE_UNSTEADY = ['test/interop/', 'test/suite/'];
/** More failures than this are no accident. */
const MOST_FILES = 5;

/** The files to run again, of a report of `jest --json`; `root` ends with a slash. */
export function filesToRepeat(report, root) {
  const failed = (report?.testResults ?? []).filter(({ status }) => status === 'failed').map(({ name }) => name.slice(root.length));
  const worth = failed.length <= MOST_FILES && failed.every((file) => MAY_BE_UNSTEADY.some((folder) => file.startsWith(folder)));
  return worth ? failed : [];
}

/**
 * Counts tests over both runs; `unsteady`: the files that passed only alone. A run is what jest's exit code and its report were. A file that
 * does not even load is one failure, and so is a run that fails and does not say of what.
 */
export function tally(first, again, root) {
  if (first.report === null) return { passed: 0, failed: 1, skipped: 0, unsteady: [] };
  const counted = { passed: 0, failed: explained(first) ? 0 : 1, skipped: 0 };
  const unsteady = [];
  const rescued = new Map(again !== null && again.report !== null && explained(again)
    ? again.report.testResults.filter(passes).map((result) => [result.name, result]) : []);
  for (const result of first.report.testResults) {
    const better = result.status === 'failed' ? rescued.get(result.name) : undefined;
    if (better !== undefined) unsteady.push(result.name.slice(root.length));
    countFile(better ?? result, counted);
  }
  return { ...counted, unsteady };
}

function explained({ ok, report }) {
  return ok || report.testResults.some(({ status }) => status === 'failed');
}

function passes({ status, assertionResults }) {
  return status === 'passed' && assertionResults.some((test) => test.status === 'passed');
}

function countFile({ status, assertionResults }, counted) {
  const among = (...statuses) => assertionResults.filter((test) => statuses.includes(test.status)).length;
  const failed = among('failed');
  counted.passed += among('passed');
  counted.failed += status === 'failed' ? Math.max(1, failed) : failed;
  counted.skipped += among('pending', 'todo', 'skipped', 'disabled');
}
