/**
 * An accepted socket that reads into memory of ours. A plain 'data' event brings a fresh buffer of 64 KiB each time,
 * which costs more than all else that is done with a large write; Node can read into given memory (`onread`), but its
 * servers do not pass that option on, so the connection is moved into a socket of our own making.
 */
import { Socket, type OnReadOpts } from 'node:net';

interface DirectReader {
  /** Where the next bytes go, never empty; asked again after each `received`. */
  next(): Uint8Array;
  /** So many bytes are there now. They must be used or copied before this returns, unless the memory is nobody else's. */
  received(bytes: number, memory: Uint8Array): void;
}

/** What libuv's handle of a connection is called inside of Node. */
interface Handle {
  readonly useUserBuffer?: unknown;
}

/** Moves the connection of a socket that was accepted paused. Null where this Node has no way to do so: use the socket itself. */
export function moveConnection(accepted: Socket, reader: DirectReader): Socket | null {
  // no public name exists for it; what is looked for is checked, and its absence costs speed only
  const inside = accepted as unknown as { _handle?: Handle | null };
  const handle = inside._handle;
  if (handle === null || handle === undefined || typeof handle.useUserBuffer !== 'function') return null;
  const onread: OnReadOpts = {
    buffer: () => reader.next(),
    callback: (bytes, memory) => {
      reader.received(bytes, memory);
      return true;
    },
  };
  const options = { handle, allowHalfOpen: true, onread };
  inside._handle = null;
  const moved = new Socket(options);
  accepted.destroy();
  return moved;
}
