import {
  blkparse, compileFormat, DEFAULT_BATCH, FORMAT_ACTIONS, parseActionFormat, parseActionMask, parseMask, parseSpan,
  type BlkparseOptions,
} from '../../src/index.js';
import { defineCommand, UsageError } from '../command.mjs';
import { openOutput, warnOfFindings, writeTo } from '../trace-text.mjs';

/** What the C library holds back of standard output that is no terminal. */
const STDIO_BYTES = 4096;

export const command = defineCommand({
  description: "Prints a trace as blkparse prints it, byte for byte: a line for each event, and a summary. FILE is NAME of NAME.blktrace.0, " +
    ".1, … (or one of these files), a merged dump, a log of fio, or '-' for a stream. Options are blkparse's. Other than blkparse, it reads " +
    'version 8 of the format and dumps by their names, and goes on behind damage. With -t it prints no time where none is known, and ' +
    'blkparse an accidental one.',
  positionals: { file: { array: true, optional: true, help: 'what to read; several are merged' } },
  options: {
    input: { type: 'string', alias: 'i', array: true, repeated: true, value: 'FILE', help: 'another way to name a FILE' },
    'input-directory': { type: 'string', alias: 'D', value: 'DIR', help: 'where names without a directory are' },
    format: { type: 'string', alias: 'f', array: true, repeated: true, value: 'FMT', help: 'print each event so: text with %a action, %c CPU, %C command, %d RWBS, ' +
      '%D device, %e error, %m %M its numbers, %n sectors, %N bytes, %p process, %P packet, %s sequence, %S sector, %t ns, %T seconds, %u elapsed µs, %U payload, %z time of day' },
    'format-spec': { type: 'string', alias: 'F', array: true, repeated: true, value: 'A,FMT', help: `print events of one action so (A: one of ${FORMAT_ACTIONS.join('')})` },
    'act-mask': { type: 'string', alias: 'a', array: true, repeated: true, value: 'ACTION', help: 'only such events: read, write, queue, issue, complete, …' },
    'set-mask': { type: 'string', alias: 'A', value: 'HEX', help: 'the same as one number' },
    stopwatch: { type: 'string', alias: 'w', value: '[START:]END', help: 'only events of that span of seconds' },
    'track-ios': { type: 'boolean', alias: 't', help: 'print how long each request waited, in ns' },
    'per-program-stats': { type: 'boolean', alias: 's', help: 'sum up by process, too' },
    'hash-by-name': { type: 'boolean', help: 'with -s: processes of one name are one' },
    quiet: { type: 'boolean', alias: 'q', help: 'no summary of devices' },
    output: { type: 'string', alias: 'o', value: 'FILE', help: 'print to a file' },
    'no-text-output': { type: 'boolean', alias: 'O', help: 'print nothing' },
    'dump-binary': { type: 'string', alias: 'd', value: 'FILE', help: 'write all events in order to one file, for btt, iowatcher and fio' },
    'no-msgs': { type: 'boolean', alias: 'M', help: 'with -d: leave messages out' },
    batch: { type: 'number', alias: 'b', min: 0, max: 1_000_000, default: DEFAULT_BATCH, help: 'events that are read, and in a stream sorted, together' },
  },
  examples: [
    { line: 'quiesce trace parse run', does: 'the events in run.blktrace.0, run.blktrace.1, …' },
    { line: 'blktrace -d /dev/vdb -o - | quiesce trace parse -', does: 'live' },
    { line: "quiesce trace parse -q -a issue -f '%5T.%9t %S %n\\n' run", does: 'when and where requests went to the device' },
    { line: 'quiesce trace parse -O -d run.bin run', does: 'one file for btt -i, iowatcher -t and fio --read_iolog' },
  ],
  run: async ({ file, input, inputDirectory, output, noTextOutput, dumpBinary, ...rest }, context) => {
    const inputs = [...input, ...file];
    if (inputs.length === 0) throw new UsageError('FILE is missing');
    const options = optionsOf(rest, context.given);
    const text = output === undefined || noTextOutput ? null : await openOutput(notDash(output));
    const dump = dumpBinary === undefined ? null : await openOutput(notDash(dumpBinary));
    try {
      const toStdout = (bytes: Uint8Array): Promise<void> => context.out.bytes(bytes);
      let tail = '';
      const { findings, foreign, unknown, driverData } = await blkparse({
        inputs, directory: inputDirectory, options, signal: context.signal, writeDump: dump === null ? null : writeTo(dump, dumpBinary!),
        write: noTextOutput ? null : text === null ? toStdout : writeTo(text, output!),
        opened: async (files) => {
          const lines = Buffer.from(files.map((name) => `Input file ${name} added\n`).join(''));
          // blkparse prints them beside its text, through a buffer that is written when it is full, or at the end
          const first = process.stdout.isTTY ? lines.length : lines.length - lines.length % STDIO_BYTES;
          await toStdout(lines.subarray(0, first));
          tail = lines.toString('utf8', first);
        },
      });
      if (driverData > 0 && dump === null) tail += '\ndiscarded traces containing low-level device driver specific data (only available in binary output)\n';
      if (tail !== '') await toStdout(Buffer.from(tail));
      warnOfFindings(findings, context.warn);
      if (foreign > 0) context.warn(`${foreign} records are of another CPU than their file: they are not shown`);
      if (unknown > 0) context.warn(`${unknown} records have an action that is not known: they are counted, and not shown`);
    } finally {
      await text?.close();
      await dump?.close();
    }
  },
});

interface Given {
  readonly format: readonly string[];
  readonly formatSpec: readonly string[];
  readonly actMask: readonly string[];
  readonly setMask: string | undefined;
  readonly stopwatch: string | undefined;
  readonly trackIos: boolean;
  readonly perProgramStats: boolean;
  readonly hashByName: boolean;
  readonly quiet: boolean;
  readonly noMsgs: boolean;
  readonly batch: number;
}

function optionsOf(args: Given, given: readonly string[]): BlkparseOptions {
  // of several formats for all actions the first counts, of several for one action the last
  const [all] = args.format;
  const formats = new Map<string, ReturnType<typeof parseActionFormat>['pieces']>(all === undefined ? [] : FORMAT_ACTIONS.map((action) => [action, compileFormat(all)]));
  for (const spec of args.formatSpec) {
    const { action, pieces } = parseActionFormat(spec);
    formats.set(action, pieces);
  }
  return {
    formats, mask: maskOf(args, given), ...(args.stopwatch === undefined ? { from: 0, to: Infinity } : parseSpan(args.stopwatch)),
    trackIos: args.trackIos, perProcess: args.perProgramStats, hashByName: args.hashByName, quiet: args.quiet, dumpMessages: !args.noMsgs,
    batch: args.batch === 0 ? DEFAULT_BATCH : args.batch,
  };
}

/** Each -a adds to what stands, and -A puts another number in its place, in the order in which they are given. */
function maskOf({ actMask, setMask }: Given, given: readonly string[]): number {
  const names = [...actMask];
  let mask = 0;
  for (const name of given) {
    if (name === 'act-mask') mask |= parseActionMask(names.shift()!);
    else if (name === 'set-mask') mask = parseMask(setMask!);
  }
  return mask === 0 ? -1 : mask;
}

function notDash(path: string): string {
  if (path === '-') throw new UsageError("a text or dump does not go to '-' (quiesce trace convert writes dumps to standard output)");
  return path;
}
