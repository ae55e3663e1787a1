/** `-L`: the exports of a server, in qemu-nbd's words. */
import { nbdServerFacts, type NbdExportFacts, type NbdFactsOptions, type TlsCredentials } from '../../src/index.js';
import { print } from '../program.mjs';
import type { NbdProgramOptions } from './options.mjs';

/** By bit. */
const FLAGS: readonly (string | null)[] = [
  null, 'readonly', 'flush', 'fua', 'rotational', 'trim', 'zeroes', 'df', 'multi', 'resize', 'cache', 'fast-zero',
];
const HAS_FLAGS = 1;

export async function list(options: NbdProgramOptions, credentials: TlsCredentials | null): Promise<number> {
  const host = options.bind ?? '0.0.0.0';
  const address: NbdFactsOptions['address'] = options.socket === null
    ? { type: 'inet', host, port: Number(options.port ?? '10809') }
    : { type: 'unix', path: options.socket };
  const facts = await nbdServerFacts({ address, tls: credentials === null ? null : { credentials, hostname: options.tlsHostname ?? host } });
  print(`exports available: ${facts.exports.length}\n${facts.exports.map(describe).join('')}`);
  return 0;
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
