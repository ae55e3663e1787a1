/** The URI under which clients find an export. */

const EVERYWHERE: Readonly<Record<string, string>> = { '': 'localhost', '0.0.0.0': 'localhost', '::': 'localhost' };

/** A server that listens on all addresses is named as this machine sees it. */
export function nbdUri(address: { readonly unix: string } | { readonly host: string; readonly port: number }, exportName: string, tls: boolean): string {
  const scheme = tls ? 'nbds' : 'nbd';
  const name = encodeURIComponent(exportName);
  if ('unix' in address) return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.unix).replaceAll('%2F', '/')}`;
  const host = EVERYWHERE[address.host] ?? address.host;
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${address.port}/${name}`;
}
