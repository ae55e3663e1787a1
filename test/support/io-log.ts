/** A trace sink that keeps what it hears as objects, for tests. */
import type { TracedNode, TracedRequest, TraceLayer, TraceSink } from '../../src/trace/sink.js';

export interface LoggedEvent {
  /** The letter that blkparse would print; `A` stands before its Q. */
  readonly action: 'Q' | 'A' | 'GI' | 'D' | 'C' | 'X' | 'M' | 'R';
  readonly layer: TraceLayer;
  /** The node's name. */
  readonly name: string;
  readonly request: TracedRequest;
  readonly errno: number;
  /** A: what it is made for. */
  readonly from: { readonly layer: TraceLayer; readonly offset: number } | null;
}

export class IoLog implements TraceSink {
  readonly events: LoggedEvent[] = [];
  readonly #devices: { readonly node: TracedNode; readonly layer: TraceLayer }[] = [];

  of(action: LoggedEvent['action'], layer: TraceLayer): LoggedEvent[] {
    return this.events.filter((event) => event.action === action && event.layer === layer);
  }

  device(node: TracedNode, layer: TraceLayer): number { return this.#devices.push({ node, layer }) - 1; }
  tick(): void { /* without times */ }
  queue(device: number, request: TracedRequest, from: number, fromOffset: number): void {
    if (from !== -1) this.#log('A', device, request, 0, { layer: this.#devices[from]!.layer, offset: fromOffset });
    this.#log('Q', device, request);
  }
  wait(device: number, request: TracedRequest): void { this.#log('GI', device, request); }
  issue(device: number, request: TracedRequest): void { this.#log('D', device, request); }
  complete(device: number, request: TracedRequest, errno: number): void { this.#log('C', device, request, errno); }
  split(device: number, request: TracedRequest): void { this.#log('X', device, request); }
  merge(device: number, request: TracedRequest): void { this.#log('M', device, request); }
  requeue(device: number, request: TracedRequest): void { this.#log('R', device, request); }

  #log(action: LoggedEvent['action'], device: number, request: TracedRequest, errno = 0, from: LoggedEvent['from'] = null): void {
    const { layer, node } = this.#devices[device]!;
    const { op, offset, bytes, flags, id, ioClass, cause, task } = request;
    this.events.push({ action, layer, name: node.name, request: { op, offset, bytes, flags, id, ioClass, cause, task }, errno, from });
  }
}
