/** What `--help` prints. */
import { formatSize } from '../src/index.js';
import type { CommandSpec, OptionSpec } from './command.mjs';
import type { CommandEntry } from './commands.mjs';
import { placeholder } from './options.mjs';

type Row = readonly [string, string];

/** A terminal's own width where it is narrower. */
const WIDTH = Math.max(60, Math.min(100, process.stdout.columns || 100));

const EXIT_CODES = 'Exit codes: 0 done, 1 failed, 2 wrong command line, 130 or 143 ended by Ctrl-C or SIGTERM.';

/** All commands, or those of one group. */
export function overview(commands: Readonly<Record<string, CommandEntry>>, description: string, group?: string): string {
  const shown = Object.entries(commands).filter(([path]) => group === undefined || path.startsWith(`${group} `));
  const name = group === undefined ? 'quiesce' : `quiesce ${group}`;
  return [
    ...(group === undefined ? [wrap(description, 0), ''] : []),
    `Usage: ${name} COMMAND [ARGUMENTS]`, '',
    'Commands:', ...table(shown.map(([path, entry]) => [path, entry.summary])), '',
    'Options:', ...table([
      ['-h, --help', 'this help; after a command, its arguments with examples'],
      ['-V, --version', 'the version'],
    ]), '',
    `${EXIT_CODES}\nQUIESCE_DEBUG=1 in the environment shows where an error comes from.`,
  ].join('\n');
}

export function commandHelp(path: string, spec: CommandSpec): string {
  const lines = [wrap(spec.description, 0), '', `Usage: ${usage(path, spec)}`];
  const section = (title: string, rows: readonly Row[]): void => {
    if (rows.length > 0) lines.push('', `${title}:`, ...table(rows));
  };
  section('Arguments', Object.entries(spec.positionals).map(([name, positional]) => [name.toUpperCase(), positional.help]));
  section('Options', [
    ...Object.entries(spec.options).map(([name, option]): Row => [optionTitle(name, option), optionHelp(option)]),
    ['-h, --help', 'this help'],
  ]);
  if (spec.examples.length > 0) lines.push('', 'Examples:');
  for (const { line, does } of spec.examples) lines.push(`  # ${does}`, `  ${line}`);
  return lines.join('\n');
}

function usage(path: string, spec: CommandSpec): string {
  const words = Object.entries(spec.positionals).map(([name, positional]) => {
    const word = name.toUpperCase() + (positional.array === true ? '...' : '');
    return positional.optional === true ? `[${word}]` : word;
  });
  const required = Object.entries(spec.options).filter(([, option]) => option.required === true)
    .map(([name, option]) => `--${name} ${placeholder(name, option)}`);
  return ['quiesce', path, ...words, ...required, '[OPTIONS]'].join(' ');
}

function optionTitle(name: string, option: OptionSpec): string {
  const alias = option.alias === undefined ? '' : `-${option.alias}, `;
  if (option.type === 'boolean') return `${alias}--${name}`;
  const value = placeholder(name, option);
  return `${alias}--${name} ${value}${option.array === true && !value.endsWith('...') ? '...' : ''}`;
}

function optionHelp(option: OptionSpec): string {
  const facts = [
    ...(option.choices !== undefined && option.value !== undefined ? [`one of ${option.choices.join(', ')}`] : []),
    ...(option.default === undefined ? [] : [`default ${defaultText(option)}`]),
  ];
  return facts.length === 0 ? option.help : `${option.help} (${facts.join('; ')})`;
}

/** A size as people write it. */
function defaultText({ type, default: value }: OptionSpec): string {
  return type === 'size' && typeof value === 'number' ? formatSize(value).replace(/ (.)iB$/, '$1') : String(value);
}

/** Two columns; a title too wide for the first stands on its own line. */
function table(rows: readonly Row[]): string[] {
  const column = Math.min(Math.max(0, ...rows.map(([title]) => title.length)), 28) + 4;
  return rows.map(([title, text]) => {
    const body = wrap(text, column);
    const fits = title.length + 4 <= column;
    return fits ? `  ${title.padEnd(column - 2)}${body}` : `  ${title}\n${' '.repeat(column)}${body}`;
  });
}

/** Breaks a text at WIDTH; lines after the first are indented. */
function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > WIDTH - indent) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join(`\n${' '.repeat(indent)}`);
}
