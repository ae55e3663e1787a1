/**
 * What our recordings say in messages, besides blktrace's own records. Each is one line that begins with `quiesce `, in fields `key=value`;
 * spaces at the end mean nothing, and `name` runs to the end of the line.
 *
 * - `quiesce device=4000,3 layer=file driver=file node=#block1 name=/images/vm.qcow2` before the first record of a device. Layers are
 *   TraceLayer's; `node` is empty where the node has no name.
 * - `quiesce process=5000001 name=nbd unix of disk0` before the first record of a pid from 5000000 on, which stands for a client of an export
 *   or a job. (Linux has no such pids. The program itself goes by its own.)
 * - `quiesce cause=l2-alloc op=write-zeroes offset=65536 bytes=4096` directly before the records (A, Q) of the request on the same device that
 *   it explains. `cause` tells why it is made; `op` what blktrace has no word for; `offset` and `bytes` are the
 *   request's own, exact where the sectors of the record are not.
 * - `quiesce dropped=17`: so many records before this one found no room.
 */
import { majorOf, minorOf } from './record.js';
import type { TraceLayer } from './sink.js';

export const FIRST_TASK_PID = 5_000_000;

const PREFIX = 'quiesce ';
/** A record has so much room; QMP's names are shorter, the library's may be of any length. */
const MOST_NODE = 255;

export interface DeviceMessage {
  readonly kind: 'device';
  readonly device: readonly [major: number, minor: number];
  readonly layer: string;
  readonly driver: string;
  readonly node: string;
  readonly name: string;
}

interface ProcessMessage {
  readonly kind: 'process';
  readonly pid: number;
  readonly name: string;
}

export interface RequestMessage {
  readonly kind: 'request';
  readonly cause: string;
  readonly op: string;
  readonly offset: number;
  readonly bytes: number;
}

interface DroppedMessage {
  readonly kind: 'dropped';
  readonly records: number;
}

export type QuiesceMessage = DeviceMessage | ProcessMessage | RequestMessage | DroppedMessage;

export function deviceMessage(device: number, layer: TraceLayer, driver: string, node: string, name: string): string {
  return `${PREFIX}device=${majorOf(device)},${minorOf(device)} layer=${layer} driver=${driver} node=${node.slice(0, MOST_NODE)} name=${oneLine(name)}`;
}

export function processMessage(pid: number, name: string): string {
  return `${PREFIX}process=${pid} name=${oneLine(name)}`;
}

export function droppedMessage(records: number): string {
  return `${PREFIX}dropped=${records}`;
}

/** What stands before the digits of the offset. */
export function requestMessageStart(cause: string, op: string): string {
  return `${PREFIX}${cause === '' ? '' : `cause=${cause} `}${op === '' ? '' : `op=${op} `}offset=`;
}

/** Null for what other programs say. */
export function parseMessage(text: string): QuiesceMessage | null {
  if (!text.startsWith(PREFIX)) return null;
  const fields = fieldsOf(text.slice(PREFIX.length).trimEnd());
  const field = (name: string): string => fields.get(name) ?? '';
  const device = /^(\d+),(\d+)$/.exec(field('device'));
  if (device !== null) {
    return { kind: 'device', device: [Number(device[1]), Number(device[2])], layer: field('layer'), driver: field('driver'), node: field('node'), name: field('name') };
  }
  if (fields.has('process')) return { kind: 'process', pid: Number(field('process')), name: field('name') };
  if (fields.has('dropped')) return { kind: 'dropped', records: Number(field('dropped')) };
  if (!fields.has('offset')) return null;
  return { kind: 'request', cause: field('cause'), op: field('op'), offset: Number(field('offset')), bytes: Number(field('bytes')) };
}

function fieldsOf(line: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  let rest = line;
  for (let match = /^([a-z]+)=/.exec(rest); match !== null; match = /^([a-z]+)=/.exec(rest)) {
    const key = match[1]!;
    const value = rest.slice(match[0].length);
    const end = key === 'name' ? -1 : value.indexOf(' ');
    fields.set(key, end === -1 ? value : value.slice(0, end));
    if (end === -1) break;
    rest = value.slice(end + 1);
  }
  return fields;
}

function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are what must not get into a line
  return text.replace(/[\u0000-\u001f\u007f]/g, '?').slice(0, 1024);
}
