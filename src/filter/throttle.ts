/** The throttle filter: what passes through waits for its turn in a throttle group. While the node is drained nothing waits. */
import type { BlockNode } from '../block/node.js';
import type { BlockRequest } from '../block/request.js';
import type { ThrottleGroup, ThrottleMember } from '../block/throttle.js';
import { FilterDriver } from './filter.js';

export class ThrottleFilter extends FilterDriver {
  readonly formatName = 'throttle';
  readonly queues = true;
  #member: ThrottleMember;

  constructor(options: { readonly child: BlockNode; readonly group: ThrottleGroup }) {
    super(options.child);
    this.#member = options.group.join();
  }

  get group(): ThrottleGroup { return this.#member.group; }

  /** Moves to another group (reopen). On a drained node. */
  setGroup(group: ThrottleGroup): void {
    if (group === this.group) return;
    const old = this.#member;
    this.#member = group.join(old);
    old.leave();
  }

  override submit(request: BlockRequest): Promise<void> {
    const turn = this.#member.admit(request);
    return turn === null ? this.forward(request) : turn.then(() => this.forward(request));
  }

  readonly drainBegin = (): void => this.#member.pass();
  readonly drainEnd = (): void => this.#member.unpass();

  override async close(): Promise<void> {
    this.#member.leave();
  }
}
