/** `-T` and `--trace`: checked as QEMU checks them. The events are those of `--trace-events` elsewhere; QEMU has more. */
import { openSync, readFileSync } from 'node:fs';
import { BlockError, errnoOf, errnoText, EventLog, events, matchingEvents, parseQemuOpts, wrapHostError } from '../src/index.js';
import { complain, print, ProgramError, writeNow } from './program.mjs';

const KNOWN = new Set(['enable', 'events', 'file']);
/** QEMU reads an events file in pieces of so many bytes, and takes each for a line. */
const LINE_BYTES = 1023;

/** `end`: the events were listed, and that is all. `file` is for `openTraceFile`. */
export type TraceAction = 'end' | { readonly file: string | null };

/** By name, as all options so far have it. */
const enabled = new Set<string>();
let logFile = 2;

/** `warn`: a line on standard error about this option. What it enables is told from here on. */
export function takeTrace(text: string, warn: (text: string) => void): TraceAction {
  // what the parser does not take for the value of `enable`
  if (/^(help|\?)(,|$)/.test(text)) return listEvents();
  const { values, help } = parseQemuOpts(text, { impliedKey: 'enable', known: KNOWN, warn: (deprecated) => warn(`warning: ${deprecated}`) });
  if (help) {
    print('trace options:\n  enable=<str>\n  events=<str>\n  file=<str>\n');
    return 'end';
  }
  const enable = values.get('enable');
  if (enable !== undefined && enableEvent(enable, (message) => warn(`warning: ${message}`)) === 'end') return 'end';
  const list = values.get('events');
  if (list !== undefined && enableFrom(list) === 'end') return 'end';
  const unknown = (name: string): Error => new BlockError('NOT_FOUND', `no trace event is called '${name}'`);
  events.log = enabled.size === 0 ? null : new EventLog([...enabled], (line) => writeNow(logFile, `${line}\n`), unknown);
  return { file: values.get('file') ?? null };
}

function listEvents(): 'end' {
  print(`${matchingEvents().join('\n')}\n`);
  return 'end';
}

/** Makes or empties the log file, which gets all lines from here on; `%d` in its name is the process. */
export function openTraceFile(name: string): void {
  if (/%(?!d)|%.*%/.test(name)) throw new BlockError('INVALID_ARGUMENT', `Bad logfile template: ${name}`);
  try {
    logFile = openSync(name.replace('%d', String(process.pid)), 'w');
  } catch (error) {
    throw wrapHostError(error, `Error opening logfile ${name}`);
  }
}

function enableEvent(word: string, warn: (text: string) => void): 'end' | void {
  if (word === 'help' || word === '?') return listEvents();
  const isOff = word.startsWith('-');
  const name = isOff ? word.slice(1) : word;
  const found = matchingEvents(name);
  if (found.length === 0 && !name.includes('*')) warn(`trace event '${name}' does not exist`);
  for (const event of found) {
    if (isOff) enabled.delete(event);
    else enabled.add(event);
  }
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
