/**
 * How much I/O may be done on the event loop itself in one of its turns. Whoever would exceed it goes through the thread
 * pool, whose answers come in later turns: so sockets and timers get theirs, however many requests are in hand, and a
 * caller that awaits one request after the other never holds the loop for itself.
 */
const TURN_BYTES = 1024 * 1024;
/** Counted with each request, since even the smallest costs a system call: about 200 of 4 KiB fit in a turn. */
const CALL_BYTES = 1024;

let left = TURN_BYTES;
let renewing = false;

/** Takes the cost of one request out of this turn's budget; false where it is used up. */
export function spendTurn(bytes: number): boolean {
  if (!renewing) {
    renewing = true;
    setImmediate(renew);
  }
  if (left < bytes) return false;
  left -= bytes + CALL_BYTES;
  return true;
}

function renew(): void {
  left = TURN_BYTES;
  renewing = false;
}
