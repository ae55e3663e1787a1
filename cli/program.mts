/** The frame of the programs that speak QEMU's command lines: the name they go by, their errors, their end. */
import { writeSync } from 'node:fs';
import { basename } from 'node:path';
import { BlockError, errnoOf, messageOf } from '../src/index.js';
import { endProcess } from './end.mjs';
import { GetoptError } from './getopt.mjs';

/** The program's name: how it was called, for these programs stand in for others through symlinks. */
export const programName = basename(process.argv[1] ?? 'quiesce');

/** Ends the program with one line on standard error. */
export class ProgramError extends Error {
  /** A second line: where help is. */
  readonly hint: string | null;
  /** The file that was read when it was found; then the command line is not what is wrong. */
  readonly place: string | null;

  constructor(message: string, hint: string | null = null, place: string | null = null) {
    super(message);
    this.hint = hint;
    this.place = place;
  }

  /** What an error says behind `prefix`, with its hint. */
  static of(prefix: string, error: unknown): ProgramError {
    if (error instanceof ProgramError && error.place !== null) return error;
    return new ProgramError(`${prefix}: ${messageOf(error)}`, hintOf(error));
  }
}

function hintOf(error: unknown): string | null {
  return error instanceof ProgramError || error instanceof BlockError ? error.hint ?? null : null;
}

const EAGAIN_WAIT_MS = 5;

/**
 * Writes to a descriptor at once. Not through process.stderr, which would hold on to its descriptor: a server in the
 * background exchanges it under way.
 */
export function writeNow(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      // nobody reads any more, or there is nobody: there is no one left to tell
      if (errnoOf(error) !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, EAGAIN_WAIT_MS);
    }
  }
}

/** `NAME: message` on standard error; `NAME:PLACE: message` where the message is about a file that was read. */
export function complain(message: string, place: string | null = null): void {
  writeNow(2, `${programName}:${place === null ? '' : `${place}:`} ${message}\n`);
}

export function print(text: string): void {
  process.stdout.write(text);
}

function fail(error: unknown): void {
  const expected = error instanceof ProgramError || error instanceof GetoptError || error instanceof BlockError || errnoOf(error) !== undefined;
  complain(expected ? messageOf(error) : `internal error: ${messageOf(error)} (QUIESCE_DEBUG=1 shows where; please report it)`, error instanceof ProgramError ? error.place : null);
  const hint = hintOf(error);
  if (hint !== null) writeNow(2, `${hint}\n`);
  if (process.env['QUIESCE_DEBUG'] === '1' && error instanceof Error) writeNow(2, `${error.stack}\n`);
  endProcess(1);
}

/** Runs a program to its end and exits with the code it resolves to. */
export function runProgram(main: (argv: readonly string[]) => Promise<number>): void {
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') fail(error);
  });
  main(process.argv.slice(2)).then(endProcess, fail);
}
