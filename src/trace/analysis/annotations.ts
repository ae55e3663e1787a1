import { Notify, type RecordBatch } from '../record.js';
import { parseMessage } from '../messages.js';

/** Of causes, devices and names: a recording of ours has few; one that pretends to have more is not believed. */
const MAX_NAMES = 4096;
const CAUSE_START = new TextEncoder().encode('quiesce cause=');
const OURS = new TextEncoder().encode('quiesce ');
const WORDS: Readonly<Record<string, string>> = { disk: 'guest disk', data: 'data', metadata: 'metadata', file: 'host file', filter: 'filter' };

/** What our recordings say besides: the layers of devices, who the pids are, and why a request was made. */
export class Annotations {
  /** The first is ''. */
  readonly causes: string[] = [''];
  /** Such as `guest disk vm.qcow2`. */
  readonly deviceNames = new Map<number, string>();
  /** `TraceLayer` of each. */
  readonly layers = new Map<number, string>();
  readonly processes = new Map<number, string>();
  /** Records that the recorder had no room for. */
  dropped = 0;
  private readonly causeNumbers = new Map<string, number>();
  private pendingDevice = NaN;
  private pendingCause = 0;

  note(batch: RecordBatch, at: number): void {
    if (batch.action[at] !== Notify.MESSAGE) return;
    const from = batch.pduOffset[at]!;
    const to = from + batch.pduLength[at]!;
    const { payloads } = batch;
    if (begins(payloads, from, to, CAUSE_START)) {
      this.pendingDevice = batch.device[at]!;
      this.pendingCause = this.causeNumber(word(payloads, from + CAUSE_START.length, to));
    } else if (begins(payloads, from, to, OURS)) this.read(new TextDecoder().decode(payloads.subarray(from, to)));
  }

  /** Why the request that is queued now on this device is made: an index of `causes`. */
  take(device: number): number {
    if (device !== this.pendingDevice) return 0;
    this.pendingDevice = NaN;
    return this.pendingCause;
  }

  private causeNumber(cause: string): number {
    let number = this.causeNumbers.get(cause);
    if (number === undefined) {
      if (this.causes.length >= MAX_NAMES) return 0;
      number = this.causes.push(cause) - 1;
      this.causeNumbers.set(cause, number);
    }
    return number;
  }

  private read(text: string): void {
    const message = parseMessage(text);
    if (message?.kind === 'device' && this.layers.size < MAX_NAMES) {
      const device = message.device[0] * 0x10_0000 + message.device[1];
      this.layers.set(device, message.layer);
      const file = message.name.slice(message.name.lastIndexOf('/') + 1);
      this.deviceNames.set(device, [WORDS[message.layer] ?? message.layer, file === '' ? message.node : file].filter((part) => part !== '').join(' '));
    } else if (message?.kind === 'process' && this.processes.size < MAX_NAMES) this.processes.set(message.pid, message.name);
    else if (message?.kind === 'dropped') this.dropped += message.records;
  }
}

function begins(payload: Uint8Array, from: number, to: number, text: Uint8Array): boolean {
  if (to - from < text.length) return false;
  for (let at = 0; at < text.length; at++) if (payload[from + at] !== text[at]) return false;
  return true;
}

function word(payload: Uint8Array, from: number, to: number): string {
  let text = '';
  for (let at = from; at < Math.min(to, from + 64) && payload[at]! > 0x20; at++) text += String.fromCharCode(payload[at]!);
  return text;
}
