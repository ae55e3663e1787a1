/** A broken assertion is a bug of the engine, never bad input: input is validated with BlockError. */
class AssertionError extends Error {
  constructor(message: string) {
    super(`internal error: ${message}`);
    this.name = 'AssertionError';
  }
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
