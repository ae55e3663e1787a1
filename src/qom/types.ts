/**
 * The types of objects that qemu-storage-daemon 7.2 has, and their properties. A line: `!` where abstract, the name, `<` the parent,
 * `+` each interface, then `property:type`; `:type-` cannot be set. Types stand in the order in which QEMU lists them, properties in
 * the order in which they are registered.
 */
import { GlibKeys } from '../qobject/glib-order.js';

interface PropertyInfo {
  readonly name: string;
  /** As told to clients. */
  readonly type: string;
  readonly writable: boolean;
}

interface TypeInfo {
  readonly name: string;
  readonly parent: string | null;
  readonly abstract: boolean;
  readonly interfaces: readonly string[];
  readonly properties: readonly PropertyInfo[];
}

const LIMITS = ['iops-total', 'iops-read', 'iops-write', 'bps-total', 'bps-read', 'bps-write'];
const THROTTLE = [...LIMITS.flatMap((name) => [name, `${name}-max`, `${name}-max-length`]), 'iops-size'].map((name) => `x-${name}:int`).join(' ');

const TABLE = `
qio-channel-null <qio-channel
authz-simple <authz +user-creatable identity:string
!secret_common <object +user-creatable loaded:bool- format:QCryptoSecretFormat keyid:string iv:string
qio-channel-socket <qio-channel
!fw_cfg-data-generator <interface
container <object
!interface
tls-creds-anon <tls-creds +user-creatable loaded:bool-
pr-manager-helper <pr-manager path:string
iothread <event-loop-base poll-max-ns:int poll-grow:int poll-shrink:int
secret <secret_common data:string file:string
!authz <object
chardev-serial <chardev-fd
!qio-channel <object
chardev-mux <chardev
tls-creds-psk <tls-creds +user-creatable loaded:bool- username:string
!tls-creds <object verify-peer:bool dir:string endpoint:QCryptoTLSCredsEndpoint priority:string
qio-channel-file <qio-channel
qio-channel-command <qio-channel
qio-channel-websock <qio-channel
chardev-pipe <chardev-fd
main-loop <event-loop-base
chardev-parallel <chardev
!chardev-fd <chardev
qio-channel-tls <qio-channel
qio-net-listener <object
authz-list-file <authz +user-creatable filename:string refresh:bool
!pr-manager <object +user-creatable
chardev-null <chardev
chardev-ringbuf <chardev
!event-loop-base <object +user-creatable aio-max-batch:int thread-pool-min:int thread-pool-max:int
qio-dns-resolver <object
authz-list <authz +user-creatable policy:QAuthZListPolicy rules:QAuthZListRule
chardev-stdio <chardev-fd
!chardev <object
!user-creatable <interface
chardev-socket <chardev addr:SocketAddress- connected:bool-
chardev-file <chardev-fd
chardev-memory <chardev-ringbuf
qio-channel-buffer <qio-channel
!object type:string-
chardev-udp <chardev
tls-creds-x509 <tls-creds +user-creatable loaded:bool- sanity-check:bool passwordid:string
tls-cipher-suites <tls-creds +user-creatable +fw_cfg-data-generator
chardev-pty <chardev
thread-context <object +user-creatable thread-id:int- cpu-affinity:int node-affinity:int
secret_keyring <secret_common serial:int32_t
throttle-group <object +user-creatable ${THROTTLE} limits:ThrottleLimits
`;

const types = new Map(TABLE.trim().split('\n').map(parseLine).map((info) => [info.name, info]));

export function findType(name: string): TypeInfo | undefined {
  return types.get(name);
}

/** In QEMU's order. */
export function allTypes(): Iterable<TypeInfo> {
  return types.values();
}

/** The type itself first, `object` last. */
function lineage(name: string): TypeInfo[] {
  const type = types.get(name);
  return type === undefined ? [] : [type, ...type.parent === null ? [] : lineage(type.parent)];
}

/** Properties as `qom-list` tells them: those of `object` first. */
export function listProperties(name: string): PropertyInfo[] {
  return lineage(name).reverse().flatMap(({ properties }) => {
    const byName = new Map(properties.map((property) => [property.name, property]));
    return [...new GlibKeys(byName.keys())].reverse().map((key) => byName.get(key)!);
  });
}

export function findProperty(type: string, property: string): PropertyInfo | undefined {
  return lineage(type).flatMap(({ properties }) => properties).find(({ name }) => name === property);
}

/** Is it the type, or made from it, or an implementation of it? QEMU answers no where two interfaces would make it so. */
export function isA(name: string, target: string): boolean {
  const ancestors = lineage(name);
  if (ancestors.some((type) => type.name === target)) return true;
  const interfaces = new Set(ancestors.flatMap((type) => type.interfaces));
  return [...interfaces].filter((implemented) => lineage(implemented).some((type) => type.name === target)).length === 1;
}

function parseLine(line: string): TypeInfo {
  const [name, ...words] = line.split(' ') as [string, ...string[]];
  const after = (mark: string): string[] => words.filter((word) => word.startsWith(mark)).map((word) => word.slice(1));
  const properties = words.filter((word) => word.includes(':')).map((word) => {
    const [property, type] = word.split(':') as [string, string];
    return { name: property, type: type.replace(/-$/, ''), writable: !type.endsWith('-') };
  });
  return { name: name.replace(/^!/, ''), parent: after('<')[0] ?? null, abstract: name.startsWith('!'), interfaces: after('+'), properties };
}
