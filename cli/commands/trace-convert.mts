import { extname } from 'node:path';
import { convertTrace, deviceOf, openTrace, TRACE_FORMS, type TraceFormName } from '../../src/index.js';
import { defineCommand, UsageError } from '../command.mjs';
import { openOutput, warnOfFindings, writeTo } from '../trace-text.mjs';

const BY_EXTENSION: Readonly<Record<string, TraceFormName>> = { '.bin': 'dump', '.dump': 'dump', '.csv': 'csv', '.log': 'fio', '.iolog': 'fio', '.fio': 'fio' };

export const command = defineCommand({
  description: "Makes another form of a trace: one file of blktrace's records in order of time, as btt, iowatcher and fio read it; CSV; or a " +
    "log for fio (of which fio 3.33 passes over the discards, saying 'bad ddir: 2'). Version 8 and either byte order go in, version 7 comes out. When fio replays either, give it --replay_redirect=FILE: " +
    'without it, it writes to the devices that have the numbers of the traced ones.',
  positionals: {
    file: { help: "the trace, as trace parse takes it ('-': a stream)" },
    out: { help: "the file to write, or '-'" },
  },
  options: {
    to: { type: 'string', choices: TRACE_FORMS, help: 'what to make; by default the ending of OUT tells: .bin or .dump, .csv, .log, .iolog or .fio' },
    device: { type: 'string', alias: 'd', array: true, repeated: true, value: 'MAJOR:MINOR', help: 'only this device; may be repeated' },
  },
  examples: [
    { line: 'quiesce trace convert run run.bin', does: 'for btt -i run.bin and iowatcher -t run.bin' },
    { line: 'quiesce trace convert --device 4000:0 run guest.log', does: 'what the guest disk was asked for, for fio --read_iolog=guest.log --replay_redirect=scratch.img' },
    { line: 'quiesce trace convert --to csv run - | head', does: 'a look at it' },
  ],
  run: async ({ file, out, to = BY_EXTENSION[extname(out)], device }, context) => {
    if (to === undefined) throw new UsageError(`the ending of '${out}' does not tell what to make: --to ${TRACE_FORMS.join('|')}`);
    const devices = device.map(parseDevice);
    const reader = await openTrace(file, { signal: context.signal });
    const target = out === '-' ? null : await openOutput(out);
    try {
      await convertTrace(reader, { to, devices, write: target === null ? (bytes) => context.out.bytes(bytes) : writeTo(target, out) });
    } finally {
      await target?.close();
    }
    warnOfFindings(reader.findings, context.warn);
  },
});

function parseDevice(text: string): number {
  const [, major, minor] = /^(\d{1,4})[:,](\d{1,7})$/.exec(text) ?? [];
  if (major === undefined || Number(major) > 0xfff || Number(minor) > 0xf_ffff) throw new UsageError(`--device: expected MAJOR:MINOR, got '${text}'`);
  return deviceOf(Number(major), Number(minor));
}
