/** `-L`: the exports of a server, in qemu-nbd's words. */
import { BlockError, inQemusWords, nbdServerFacts, portNumber, type NbdExportFacts, type NbdFactsOptions, type NbdServerFacts, type TlsCredentials } from '../../src/index.js';
import { print, ProgramError } from '../program.mjs';
import type { NbdProgramOptions } from './options.mjs';

/** By bit. */
const FLAGS: readonly (string | null)[] = [
  null, 'readonly', 'flush', 'fua', 'rotational', 'trim', 'zeroes', 'df', 'multi', 'resize', 'cache', 'fast-zero',
];
const HAS_FLAGS = 1;

export async function list(options: NbdProgramOptions, credentials: TlsCredentials | null): Promise<number> {
  const host = options.bind ?? '0.0.0.0';
  const address: NbdFactsOptions['address'] = options.socket === null
    ? { type: 'inet', host, port: portNumber({ host, port: options.port ?? '10809' }) }
    : { type: 'unix', path: options.socket };
  const { protocol, exports } = await nbdServerFacts({ address, tls: credentials === null ? null : { credentials, hostname: options.tlsHostname ?? host } })
    .catch(withoutList);
  if (protocol === 'newstyle') throw new ProgramError('Server does not support export lists');
  print(`exports available: ${exports.length}\n${exports.map(describe).join('')}`);
  return 0;
}

/** A server that has no list is told as one without exports. */
function withoutList(error: unknown): Pick<NbdServerFacts, 'protocol' | 'exports'> {
  if (error instanceof BlockError && error.code === 'NOT_SUPPORTED') return { protocol: 'newstyle-fixed', exports: [] };
  throw inQemusWords(error);
}

function describe({ name, description, info, contexts }: NbdExportFacts): string {
  const lines = [` export: '${name}'`];
  const told = description ?? info?.description ?? '';
  if (told !== '') lines.push(`  description: ${told}`);
  if (info !== null && info.flags % 2 === HAS_FLAGS) {
    const names = FLAGS.filter((flag, bit) => flag !== null && (info.flags & (1 << bit)) !== 0).map((flag) => ` ${flag}`);
    lines.push(`  size:  ${info.size}`, `  flags: 0x${info.flags.toString(16)} (${names.join('')} )`);
  }
  if (info !== null && info.minimumBlock > 0) {
    lines.push(`  min block: ${info.minimumBlock}`, `  opt block: ${info.preferredBlock}`, `  max block: ${info.maximumBlock}`);
  }
  if (contexts.length > 0) lines.push(`  available meta contexts: ${contexts.length}`, ...contexts.map((context) => `   ${context}`));
  return lines.map((line) => `${line}\n`).join('');
}
