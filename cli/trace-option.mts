/**
 * `-T` and `--trace`: checked as QEMU checks them. There are no trace events of QEMU's kind here, so none that is named
 * exists, none is listed, and the log file stays empty.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { BlockError, errnoOf, errnoText, parseQemuOpts, wrapHostError } from '../src/index.js';
import { complain, print, ProgramError } from './program.mjs';

const KNOWN = new Set(['enable', 'events', 'file']);
/** QEMU reads an events file in pieces of so many bytes, and takes each for a line. */
const LINE_BYTES = 1023;

/** `end`: the events were listed, and that is all. `file` is for `openTraceFile`. */
export type TraceAction = 'end' | { readonly file: string | null };

/** `warn`: a line on standard error about this option. */
export function takeTrace(text: string, warn: (text: string) => void): TraceAction {
  // what the parser does not take for the value of `enable`
  if (/^(help|\?)(,|$)/.test(text)) return 'end';
  const { values, help } = parseQemuOpts(text, { impliedKey: 'enable', known: KNOWN, warn: (deprecated) => warn(`warning: ${deprecated}`) });
  if (help) {
    print('trace options:\n  enable=<str>\n  events=<str>\n  file=<str>\n');
    return 'end';
  }
  const enable = values.get('enable');
  if (enable !== undefined && enableEvent(enable, (message) => warn(`warning: ${message}`)) === 'end') return 'end';
  const events = values.get('events');
  if (events !== undefined && enableFrom(events) === 'end') return 'end';
  return { file: values.get('file') ?? null };
}

/** Makes or empties the log file; `%d` in its name is the process. */
export function openTraceFile(name: string): void {
  if (/%(?!d)|%.*%/.test(name)) throw new BlockError('INVALID_ARGUMENT', `Bad logfile template: ${name}`);
  try {
    closeSync(openSync(name.replace('%d', String(process.pid)), 'w'));
  } catch (error) {
    throw wrapHostError(error, `Error opening logfile ${name}`);
  }
}

function enableEvent(word: string, warn: (text: string) => void): 'end' | void {
  if (word === 'help' || word === '?') return 'end';
  const name = word.startsWith('-') ? word.slice(1) : word;
  if (!name.includes('*')) warn(`trace event '${name}' does not exist`);
}

/** A file of such words, one per line. */
function enableFrom(path: string): 'end' | void {
  for (const [index, line] of linesOf(path).entries()) {
    // QEMU cuts the last character off, whatever it is
    const word = line.slice(0, -1);
    if (word === '' || word.startsWith('#')) continue;
    if (enableEvent(word, (text) => complain(`warning: ${text}`, `${path}:${index + 1}`)) === 'end') return 'end';
  }
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').match(new RegExp(`[^\\n]{0,${LINE_BYTES - 1}}\\n|[^\\n]{1,${LINE_BYTES}}`, 'g')) ?? [];
  } catch (error) {
    if (errnoOf(error) === 'EISDIR') return [];
    throw new ProgramError(errnoText(errnoOf(error)), null, path);
  }
}
