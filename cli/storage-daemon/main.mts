/** quiesce-storage-daemon: holds images open, exports them and obeys QMP, with the command line of qemu-storage-daemon. */
import { ProgramError, print, programName, runProgram } from '../program.mjs';
import { help, version } from './help.mjs';

async function main(argv: readonly string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) print(help(programName));
  else if (argv.includes('--version') || argv.includes('-V')) print(version(programName));
  else throw new ProgramError('not built yet');
  return 0;
}

runProgram(main);
