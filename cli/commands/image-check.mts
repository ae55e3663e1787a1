import { BlockError, openImage, type BlockDriver, type CheckResult } from '../../src/index.js';
import { FORMAT_CHOICES, JSON_OUTPUT, SHARE, TRACING } from '../common-options.mjs';
import { defineCommand, type CommandContext } from '../command.mjs';

const QUICK_MS = 500;
/** qemu-img check's exit codes. */
const EXIT = { clean: 0, failed: 1, corrupt: 2, leaks: 3, unsupported: 63 } as const;

export const command = defineCommand({
  description: 'Checks the consistency of an image: refcounts, L1 and L2 tables, COPIED flags, snapshots. ' +
    'Exit code: 0 clean, 1 not checked, 2 corrupt, 3 leaked clusters only, 63 the format has no checks.',
  positionals: { file: { help: 'the image' } },
  options: {
    format: { type: 'string', alias: 'f', choices: FORMAT_CHOICES, help: 'do not probe: the image has this format' },
    repair: { type: 'string', alias: 'r', choices: ['leaks'], help: 'give leaked clusters back' },
    'force-share': SHARE,
    quiet: { type: 'boolean', alias: 'q', help: 'print nothing, only set the exit code' },
    json: JSON_OUTPUT,
    output: { type: 'string', choices: ['human', 'json'], default: 'human', help: "qemu-img's way to ask for JSON" },
    ...TRACING,
  },
  examples: [
    { line: 'quiesce image check disk.qcow2', does: 'look, change nothing' },
    { line: 'quiesce image check -r leaks disk.qcow2', does: 'give back clusters that a crash leaked' },
  ],
  usageExitCode: 1,
  run: async ({ file, format, repair, forceShare, quiet, json, output }, context) => {
    const node = await openImage(file, { format, readOnly: repair === undefined, forceShare, noBacking: true, forCheck: true });
    try {
      if (node.driver.check === undefined) {
        if (!quiet) context.warn(`'${file}' has format ${node.driver.formatName}, which has no consistency checks`);
        return EXIT.unsupported;
      }
      const result = await runCheck(node.driver.check, node.length(), repair, context);
      if (json || output === 'json') context.out.json(toJson(result, file, node.driver.formatName));
      else if (!quiet) print(result, context);
      return exitCode(result);
    } finally {
      await node.close();
    }
  },
});

type Check = NonNullable<BlockDriver['check']>;

/** The bar counts the part of the disk that is looked through; checks that are over at once show none. */
async function runCheck(check: Check, diskBytes: number, repair: 'leaks' | undefined, context: CommandContext): Promise<CheckResult> {
  const progress = await context.progress();
  const slowAt = performance.now() + QUICK_MS;
  let shown = false;
  try {
    return await check({
      repair: repair ?? 'none',
      onProgress: (done, total) => {
        if (context.signal.aborted) throw context.signal.reason instanceof Error ? context.signal.reason : new BlockError('CANCELLED', 'the check was cancelled');
        if (performance.now() < slowAt) return;
        if (!shown) progress.start(diskBytes, 'checking');
        shown = true;
        progress.update((done / total) * diskBytes);
      },
    });
  } finally {
    progress.stop();
  }
}

function exitCode(result: CheckResult): number {
  if (result.checkErrors > 0) return EXIT.failed;
  if (result.corruptions > 0) return EXIT.corrupt;
  return result.leaks > 0 ? EXIT.leaks : EXIT.clean;
}

function print(result: CheckResult, { out }: CommandContext): void {
  for (const message of result.messages) out.line(message);
  const plural = (count: number, one: string, many: string): string => `${count} ${count === 1 ? one : many}`;
  if (result.leaksFixed > 0) out.line(`The following inconsistencies were found and repaired:\n\n    ${plural(result.leaksFixed, 'leaked cluster', 'leaked clusters')}\n`);
  if (result.corruptions > 0) out.line(`\n${plural(result.corruptions, 'error was', 'errors were')} found on the image.\nData may be corrupted, or further writes to the image may corrupt it.`);
  if (result.leaks > 0) out.line(`\n${plural(result.leaks, 'leaked cluster was', 'leaked clusters were')} found on the image.\nThis means waste of disk space, but no harm to data.`);
  if (result.checkErrors > 0) out.line(`\n${plural(result.checkErrors, 'internal error has', 'internal errors have')} occurred during the check.`);
  if (result.corruptions + result.leaks + result.checkErrors === 0) out.line('No errors were found on the image.');
  if (result.totalClusters > 0 && result.allocatedClusters > 0) {
    const percent = (part: number, whole: number): string => ((part * 100) / whole).toFixed(2);
    out.line(`${result.allocatedClusters}/${result.totalClusters} = ${percent(result.allocatedClusters, result.totalClusters)}% allocated, ` +
      `${percent(result.fragmentedClusters, result.allocatedClusters)}% fragmented, ${percent(result.compressedClusters, result.allocatedClusters)}% compressed clusters`);
  }
  out.line(`Image end offset: ${result.imageEndOffset}`);
}

/** QEMU's ImageCheck: counts that are zero are left out. */
function toJson(result: CheckResult, filename: string, format: string): Record<string, unknown> {
  const counts = {
    corruptions: result.corruptions, leaks: result.leaks, 'corruptions-fixed': result.corruptionsFixed, 'leaks-fixed': result.leaksFixed,
    'total-clusters': result.totalClusters, 'allocated-clusters': result.allocatedClusters, 'fragmented-clusters': result.fragmentedClusters, 'compressed-clusters': result.compressedClusters,
  };
  return {
    filename, format, 'check-errors': result.checkErrors, 'image-end-offset': result.imageEndOffset,
    ...Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0)),
  };
}
