/** quiesce-storage-daemon: holds images open, exports them and obeys QMP, with the command line of qemu-storage-daemon. */
import packageJson from '../../package.json' with { type: 'json' };
import { PidFile, StorageDaemon } from '../../src/index.js';
import { isBackground, startInBackground, tellReady } from '../background.mjs';
import { getopt, GetoptError, type GetoptItem } from '../getopt.mjs';
import { complain, ProgramError, print, programName, runProgram, writeNow } from '../program.mjs';
import { help, version } from './help.mjs';
import { EFFECTS, OPTIONS, ownStdio, type Setting } from './options.mjs';

async function main(argv: readonly string[]): Promise<number> {
  const items = readCommandLine(argv);
  const first = items.find(({ kind, name }) => kind === 'option' && (name === 'help' || name === 'version'));
  if (first !== undefined) {
    print(first.name === 'help' ? help(programName) : version(programName));
    return 0;
  }
  const daemonize = items.some(({ name }) => name === 'daemonize');
  if (daemonize && !isBackground) return startInBackground(false);
  return run(items, daemonize);
}

interface Item {
  readonly kind: 'option' | 'word';
  readonly name: string;
  readonly value: string;
  /** As it stands on the command line. */
  readonly words: string;
}

/** Up to the first that asks for help or the version: what is wrong behind it does not matter. */
function readCommandLine(argv: readonly string[]): Item[] {
  const items: Item[] = [];
  try {
    for (const item of getopt(OPTIONS, argv)) {
      if (item.kind === 'rest') break;
      items.push(itemOf(item));
      if (item.kind === 'option' && (item.name === 'help' || item.name === 'version')) break;
    }
  } catch (error) {
    throw error instanceof GetoptError ? new ProgramError(error.message) : error;
  }
  return items;
}

function itemOf(item: Exclude<GetoptItem, { kind: 'rest' }>): Item {
  if (item.kind === 'word') return { kind: 'word', name: '', value: item.word, words: item.word };
  return { kind: 'option', name: item.name, value: item.value ?? '', words: item.words };
}

async function run(items: readonly Item[], daemonize: boolean): Promise<number> {
  if (daemonize) process.umask(0o027);
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: `quiesce-${packageJson.version}` }, stdio: ownStdio(daemonize), say });
  const stopping = new AbortController();
  void daemon.ended.then(() => stopping.abort());
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => daemon.quit());
  const setting: Setting = { daemon, stop: stopping.signal, pidFile: null, keptJobs: [], say: () => undefined };
  let pidFile: PidFile | null = null;
  // a monitor may have its first client while the options behind it are still to take effect
  const letCommandsRun = daemon.qmp.holdCommands();
  try {
    for (const item of items) {
      const ended = await takeEffect(item, setting);
      if (ended) return 0;
    }
    for (const kept of setting.keptJobs) await kept.goOn();
    if (setting.pidFile !== null) pidFile = writePidFile(setting.pidFile);
    if (daemonize) process.chdir('/');
    tellReady();
    letCommandsRun();
    await untilEnded(daemon);
    return 0;
  } finally {
    for (const kept of setting.keptJobs) kept.letGo();
    await daemon.close();
    pidFile?.remove();
  }
}

function say(where: 'output' | 'errors', line: string): void {
  if (where === 'output') print(`${line}\n`);
  else writeNow(2, `${line}\n`);
}

/** Also where nothing is left that anything could come from: it holds its disks until it is told to end. */
async function untilEnded(daemon: StorageDaemon): Promise<void> {
  const alive = setInterval(() => undefined, 2 ** 30);
  try {
    await daemon.ended;
  } finally {
    clearInterval(alive);
  }
}

/** True where the option only printed something, and that is all. */
async function takeEffect(item: Item, setting: Setting): Promise<boolean> {
  try {
    if (item.kind === 'word') throw new ProgramError('Unexpected argument');
    return await EFFECTS[item.name]?.(item.value, { ...setting, say: (text) => complain(`${item.words}: ${text}`) }, setting) === 'end';
  } catch (error) {
    throw ProgramError.of(item.words, error);
  }
}

function writePidFile(path: string): PidFile {
  try {
    return PidFile.write(path, process.pid);
  } catch (error) {
    throw ProgramError.of('cannot create PID file', error);
  }
}

runProgram(main);
