import { analyseTrace, loadTrace, openTrace } from '../../src/index.js';
import { JSON_OUTPUT } from '../common-options.mjs';
import { defineCommand, UsageError } from '../command.mjs';
import { brokenLimits, LATENCIES, parseFailOn, parseLimit } from '../trace-limits.mjs';
import { writeTracePage } from '../trace-page.mjs';
import { reportJson } from '../trace-report-json.mjs';
import { printReport } from '../trace-report-text.mjs';

/** Of a trace that was read and is not as it was to be. */
const NOT_KEPT = 3;

export const command = defineCommand({
  description: 'Tells what is wrong with the I/O of a trace and what helps, each with evidence; then traffic, latencies with percentiles, queue depth, ' +
    "processes, layers, and btt's numbers. Memory does not grow with the trace. For continuous integration: with --max or --fail-on the exit code " +
    'is 3 if the trace does not keep them, 0 if it does, and 1 if it cannot be read.',
  positionals: { file: { help: "the trace: NAME of the files NAME.blktrace.0, …, one of these, a merged dump, a log of fio, or '-' for standard input" } },
  options: {
    max: {
      type: 'string', array: true, repeated: true, value: 'LIMIT',
      help: `a latency that no device may exceed, such as q2c.p99=10ms: one of ${LATENCIES.join(', ')}, then avg, max or p50 to p99.99; several times for several`,
    },
    'fail-on': {
      type: 'string', array: true, repeated: true, value: 'WHAT',
      help: 'findings that are failures: names of rules as the report tells them (rmw, depth-1, …), or warning or critical for these and worse; commas between several',
    },
    json: JSON_OUTPUT,
    html: { type: 'string', value: 'FILE', help: 'write a page there that shows the trace as trace serve does: one file that carries it, and needs no network' },
  },
  examples: [
    { line: 'quiesce trace report mirror', does: 'the files mirror.blktrace.0, mirror.blktrace.1, …' },
    { line: 'blktrace -d /dev/vdb -w 10 -o - | quiesce trace report -', does: 'ten seconds of a disk' },
    { line: 'quiesce trace report mirror --html mirror.html', does: 'with a page for whoever is to see it' },
    { line: 'quiesce trace report run.bin --max q2c.p99=10ms --fail-on rmw,flush-storm', does: 'for continuous integration: exit code 3 if it is slower or either is found' },
  ],
  run: async ({ file, max, failOn, json, html }, { out, signal, warn }) => {
    const limits = max.map(parseLimit);
    const fails = parseFailOn(failOn);
    // the page holds each request, the report none
    if (html !== undefined && file === '-') throw new UsageError('--html reads the trace a second time, and a stream is there once');
    const reader = await openTrace(file);
    const analysis = await analyseTrace(reader, { signal });
    const { skips, skippedBytes, outOfOrder } = reader.findings;
    if (skips > 0) warn(`${skippedBytes} bytes in ${skips} place${skips === 1 ? ' are' : 's are'} no records, and were skipped`);
    if (outOfOrder > 0) warn(`${outOfOrder} records were out of order`);
    const broken = brokenLimits(analysis, limits, fails);
    // first: whoever reads the text may stop before its end
    if (html !== undefined) await writeTracePage(html, await loadTrace(file, { signal }));
    if (json) out.json(reportJson(analysis, broken));
    else printReport(analysis, broken, out);
    return broken.length > 0 ? NOT_KEPT : 0;
  },
});
