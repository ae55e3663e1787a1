/** The frame of every command: finds it, reads its arguments, runs it, prints its error, and sets the exit code. */
import { inspect } from 'node:util';
import packageJson from '../package.json' with { type: 'json' };
import { BlockError, errnoOf, messageOf } from '../src/index.js';
import { UsageError, type Command, type CommandContext } from './command.mjs';
import { COMMANDS, type CommandEntry } from './commands.mjs';
import { endNow, endProcess } from './end.mjs';
import { commandHelp, overview } from './help.mjs';
import { listenForInterrupt } from './interrupt.mjs';
import { interpret, scan } from './options.mjs';
import { createOutput } from './output.mjs';
import { createProgress, type Progress } from './progress.mjs';
import { didYouMean } from './suggest.mjs';
import { beginTracing, listEvents } from './tracing.mjs';

interface Found {
  readonly path: string;
  readonly entry: CommandEntry;
  readonly argv: readonly string[];
}

const out = createOutput((data, done) => void process.stdout.write(data, done));

function complain(text: string): void {
  process.stderr.write(`quiesce: ${text.trim().replaceAll(/\s*\n\s*/g, '; ')}\n`);
}

/** `image create …` is two words, `demo …` one. */
function find(argv: readonly string[]): Found | undefined {
  for (const length of [2, 1]) {
    const path = argv.slice(0, length).join(' ');
    if (Object.hasOwn(COMMANDS, path)) return { path, entry: COMMANDS[path]!, argv: argv.slice(length) };
  }
  return undefined;
}

function asksForHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return argv.slice(0, end < 0 ? argv.length : end).some((word) => word === '--help' || word === '-h');
}

/** No command was found: help where it was asked for, else what is wrong. */
function explain(argv: readonly string[]): number {
  const words = argv.filter((word) => !word.startsWith('-'));
  const isGroup = Object.keys(COMMANDS).some((path) => path.startsWith(`${words[0]} `));
  const incomplete = words.length === (isGroup ? 1 : 0);
  if (incomplete && (argv.length === words.length || asksForHelp(argv))) {
    const asked = asksForHelp(argv);
    (asked ? process.stdout : process.stderr).write(`${overview(COMMANDS, `${packageJson.description}.`, words[0])}\n`);
    return asked ? 0 : 2;
  }
  if (incomplete) complain(`unknown option '${argv.find((word) => word.startsWith('-'))}' (see quiesce --help)`);
  else complain(`${unknownCommand(words, isGroup)} (see quiesce --help)`);
  return 2;
}

/** Both words may be mistyped, or the first one forgotten. */
function unknownCommand([first = '', second = '']: readonly string[], isGroup: boolean): string {
  const known = Object.keys(COMMANDS);
  const pair = `${first} ${second}`.trim();
  const meantPair = didYouMean(pair, known);
  if (isGroup || meantPair !== '') return `unknown command '${pair}'${meantPair}`;
  const complete = known.filter((path) => path.endsWith(` ${first}`)).map((path) => `'${path}'`);
  if (complete.length > 0) return `unknown command '${first}' (did you mean ${complete.join(' or ')}?)`;
  return `unknown command '${first}'${didYouMean(first, new Set(known.map((path) => path.split(' ')[0]!)))}`;
}

async function runCommand({ path, entry, argv }: Found): Promise<number> {
  const { command } = await entry.load();
  if (asksForHelp(argv)) {
    out.line(commandHelp(path, command.spec));
    return 0;
  }
  try {
    const raw = entry.quick === true ? scan(command.spec, argv) : await (await import('./yargs-scan.mjs')).scanWithYargs(command.spec, argv);
    return await runInterruptible(path, command, interpret(command.spec, raw), raw.given ?? []);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(`${error.message} (see quiesce ${path} --help)`);
    return command.spec.usageExitCode ?? 2;
  }
}

async function runInterruptible(path: string, command: Command, args: Readonly<Record<string, unknown>>, given: readonly string[]): Promise<number> {
  const interrupt = listenForInterrupt(endNow);
  let progress: Promise<Progress> | undefined;
  let bars: Progress | undefined;
  const context: CommandContext = {
    given,
    signal: interrupt.signal,
    // a result printed into a running bar could not be read
    out: createOutput((data, done) => {
      bars?.stop();
      process.stdout.write(data, done);
    }),
    warn: (message) => complain(`warning: ${message}`),
    hint: (message) => { if (process.stderr.isTTY) process.stderr.write(`${message}\n`); },
    progress: async () => bars = await (progress ??= createProgress()),
  };
  const listed = listEvents(args);
  if (listed !== null) {
    out.line(listed);
    return 0;
  }
  // an argument may be called so too, and then it is a trace to be read
  const tracing = Object.hasOwn(command.spec.options, 'trace') ? beginTracing(args, path, context.warn) : null;
  try {
    return (await command.run(args, context)) ?? 0;
  } catch (error) {
    (await progress)?.stop();
    const code = interrupt.exitCode();
    if (code === undefined || error instanceof UsageError) throw error;
    // a closed pipe needs no words: nobody reads on
    if (code !== 141) printError(error);
    return code;
  } finally {
    (await progress)?.stop();
    await tracing?.end();
  }
}

/** Errors of images and hosts are one line; anything else is a bug and says so. */
function printError(error: unknown): void {
  const expected = error instanceof BlockError || errnoOf(error) !== undefined;
  complain(expected ? messageOf(error) : `internal error: ${messageOf(error)} (QUIESCE_DEBUG=1 shows where; please report it)`);
  if (process.env['QUIESCE_DEBUG'] === '1') process.stderr.write(`${inspect(error)}\n`);
}

async function main(argv: readonly string[]): Promise<number> {
  const [first] = argv;
  if (first === '--version' || first === '-V') {
    out.line(packageJson.version);
    return 0;
  }
  if (first === '--get-yargs-completions') {
    const { complete } = await import('./complete.mjs');
    out.line((await complete(COMMANDS, argv.slice(1))).join('\n'));
    return 0;
  }
  const words = first === 'help' ? [...argv.slice(1), '--help'] : argv;
  const found = find(words);
  return found === undefined ? explain(words) : runCommand(found);
}

function fail(error: unknown): void {
  printError(error);
  endProcess(1);
}

process.on('uncaughtException', fail);
// a reader that had enough (`| head`) is no error of ours
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') fail(error);
});
process.on('unhandledRejection', fail);
main(process.argv.slice(2)).then(endProcess, fail);
