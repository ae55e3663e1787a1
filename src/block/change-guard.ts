/** Who has to know of the changes of a node before they begin, whoever makes them and through whatever. */

export interface ChangeGuard {
  /** Null: at once, in the same turn of the event loop. No bytes: something changes that is no user's data. */
  begin(offset: number, bytes: number): Promise<void> | null;
  /** Once for each `begin`: the change is over, and all who hear of it have heard. */
  ended(offset: number, bytes: number): void;
}

/** A request's. */
interface Range {
  readonly offset: number;
  readonly bytes: number;
}

/** Resolves when the request may begin, in that turn; null: now. `endGuarded` is due for it in any case. */
export function beginGuarded(guards: readonly ChangeGuard[], { offset, bytes }: Range): Promise<void> | null {
  const waits = guards.map((guard) => guard.begin(offset, bytes)).filter((wait) => wait !== null);
  if (waits.length === 0) return null;
  return guards.length === 1 ? waits[0]! : settle(guards, waits);
}

/** What one of them allowed may be over before the last one has. */
async function settle(guards: readonly ChangeGuard[], first: readonly Promise<void>[]): Promise<void> {
  for (let waits = first; waits.length > 0;) {
    await Promise.all(waits);
    waits = guards.map((guard) => guard.begin(0, 0)).filter((wait) => wait !== null);
    for (const guard of guards) guard.ended(0, 0);
  }
}

export function endGuarded(guards: readonly ChangeGuard[], { offset, bytes }: Range): void {
  for (const guard of guards) guard.ended(offset, bytes);
}
