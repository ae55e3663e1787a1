/** quiesce-nbd: an NBD server for one image, with the command line of qemu-nbd. */
import { existsSync } from 'node:fs';
import { ObjectModel, type TlsCredentials } from '../../src/index.js';
import { isBackground, startInBackground } from '../background.mjs';
import { addObject } from '../object-option.mjs';
import { complain, ProgramError, print, programName, runProgram } from '../program.mjs';
import { openTraceFile, takeTrace, type TraceAction } from '../trace-option.mjs';
import { help, version } from './help.mjs';
import { list } from './list.mjs';
import { checkLabel, checkTogether, readOptions, type NbdProgramOptions } from './options.mjs';
import { serve, type ServeSetting } from './serve.mjs';

/** systemd's protocol: how many sockets came with the process, from descriptor 3 on. */
function activatedSockets(): number {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  const count = /^\d+$/.test(LISTEN_FDS ?? '') ? Number(LISTEN_FDS) : 0;
  return isBackground || LISTEN_PID === String(process.pid) ? count : 0;
}

async function main(argv: readonly string[]): Promise<number> {
  const objects = new ObjectModel();
  const options = readOptions(argv, { addObject: (text) => addObject(objects, text), trace });
  if (options.action === 'end') return 0;
  if (options.action === 'help' || options.action === 'version') {
    print(options.action === 'help' ? help(programName) : version(programName));
    return 0;
  }
  if (options.traceFile !== null) openTraceFile(options.traceFile);
  const activated = activatedSockets();
  checkTogether(options, activated);
  const tls = options.tlsCreds === null ? null : credentialsOf(objects, options.tlsCreds, options.action === 'list' ? 'client' : 'server');
  checkLabel(options);
  if (options.action === 'list') return list(options, tls);
  refuseDevices(options);
  if (options.fork && !isBackground) return startInBackground(activated > 0);
  return serve(options, {
    activated: activated > 0, tls, authorize: authorization(objects, options.tlsAuthz),
    context: { tlsCredentials: (id) => objects.tlsCredentials(id), throttleGroup: (name) => objects.throttleGroup(name) },
  });
}

/** What is wrong is told once: the process in the background reads the same command line again. */
function trace(text: string): TraceAction {
  return takeTrace(text, isBackground ? () => undefined : complain);
}

function credentialsOf(objects: ObjectModel, id: string, endpoint: 'client' | 'server'): TlsCredentials {
  const fail = (why: string): never => { throw new ProgramError(`Failed to get TLS creds: ${why}`); };
  const credentials = objects.tlsCredentials(id) ?? fail(objects.typeOf(id) === undefined
    ? `No TLS credentials with id '${id}'` : `Object with id '${id}' is not TLS credentials`);
  return credentials.endpoint === endpoint ? credentials : fail(`Expecting TLS credentials with a ${endpoint} endpoint`);
}

/** Asked for each client. Without the object nobody is let in. */
function authorization(objects: ObjectModel, id: string | null): ServeSetting['authorize'] {
  return id === null ? null : (subject) => objects.authorizes(id, subject) === true;
}

/** The kernel's NBD client is not driven from here. */
function refuseDevices({ connect, disconnect, file }: NbdProgramOptions): void {
  const device = disconnect ? file : connect;
  if (device === null) return;
  if (!existsSync(device)) throw new ProgramError(`${disconnect ? 'Cannot' : 'Failed to'} open ${device}: No such file or directory`);
  throw new ProgramError('Kernel /dev/nbdN support not available');
}

runProgram(main);
