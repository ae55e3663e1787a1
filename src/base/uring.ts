/**
 * Small reads and writes, and syncs, through io_uring: all that a turn of the event loop asks for goes to the kernel in
 * one call, and no thread is woken for it. A write that must last goes together with its sync, which begins without us.
 * The thread pool costs several times as much for each request.
 *
 * Nothing depends on it: where the kernel, a container or QUIESCE_NO_URING=1 forbids it, and whenever a request does not
 * end as wished, the thread pool does the work, and tells the error if there is one.
 */
import { closeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import type { Socket } from 'node:net';
import type { KoffiFunc } from 'koffi';
import { assert } from './assert.js';
import { arenaAddress } from './buffer-pool.js';
import { capabilities, hostLibrary } from './libc.js';
import { ioStep, syncBegins, syncEnded } from './polling.js';

/** Requests in flight at most; the kernel makes its queue of completions twice as long, so that cannot overflow. */
const ENTRIES = 256;

// The numbers are the same on all processors that libc.ts knows
const SYS_SETUP = 425;
const SYS_ENTER = 426;
const SYS_REGISTER = 427;
const SETUP_COOP_TASKRUN = 1 << 8;
const FEATURE_SINGLE_MMAP = 1 << 0;
/** Came with the kernel that has plain reads and writes (5.6). */
const FEATURE_RW_CUR_POS = 1 << 3;
const REGISTER_EVENTFD = 4;
/** Looks for completions, and lets the kernel do what it had put off. */
const ENTER_GETEVENTS = 1;
/** A completion that nobody was woken for is found after at most twice this. */
const WATCH_MS = 1000;
const OP_FSYNC = 3;
const OP_READ = 22;
const OP_WRITE = 23;
/** In the byte after the operation: the next request begins when this one has ended well, and is cancelled otherwise. */
const LINKED = 1 << (8 + 2);
const FSYNC_DATASYNC = 1;
const EFD_NONBLOCK_CLOEXEC = 0x80800;
const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;
const MMAP_ENTRIES = 0x1000_0000;
const MAP_FAILED = 2n ** 64n - 1n;

/** struct io_uring_params: its size, and where in it the offsets of the two queues begin. */
const PARAMS_BYTES = 120;
const ENTRY_WORDS = 16;
const COMPLETION_WORDS = 4;

/** Hears how many bytes were moved; negative where the request failed or was never made. */
type Moved = (result: number) => void;

interface Slot {
  readonly index: number;
  /** Kept from the garbage collector while the kernel holds its address. */
  buffer: Uint8Array | null;
  moved: Moved | null;
  /** A sync that went to the kernel without the write that it had to wait for: it was in vain, but its error counts. */
  unordered: boolean;
}

type SystemCall = KoffiFunc<(call: number, a: number, b: number, c: number, d: number, e: number, f: number) => number>;

/** The mapped queues, as words, and where in them each field is. */
interface Queues {
  readonly fd: number;
  readonly ring: Uint32Array;
  readonly entries: Uint32Array;
  readonly entries64: BigUint64Array;
  readonly submitTail: number;
  readonly completeHead: number;
  readonly completeTail: number;
  readonly completions: number;
  readonly completionMask: number;
  readonly entryMask: number;
  /** Afterwards the words must not be touched. */
  unmap(): void;
}

class Uring {
  readonly #queues: Queues;
  readonly #enter: SystemCall;
  readonly #errno: () => number;
  readonly #wake: WakeHandle;
  readonly #free: Slot[] = [];
  readonly #slots: readonly Slot[];
  #inFlight = 0;
  /** In the queue, and not yet with the kernel. */
  #pending = 0;
  #scheduled = false;
  #broken = false;
  #watch: NodeJS.Timeout | null = null;
  /** Something has ended since the watch looked. */
  #alive = false;

  constructor(queues: Queues, enter: SystemCall, errno: () => number, wake: WakeHandle) {
    this.#queues = queues;
    this.#enter = enter;
    this.#errno = errno;
    this.#wake = wake;
    this.#slots = Array.from({ length: ENTRIES }, (_, index): Slot => ({ index, buffer: null, moved: null, unordered: false }));
    this.#free.push(...this.#slots);
    wake.listen(() => this.#reap());
  }

  read(fd: number, into: Uint8Array, offset: number, moved: Moved): boolean {
    return this.#transfer(OP_READ, fd, into, offset, moved);
  }

  write(fd: number, from: Uint8Array, offset: number, moved: Moved): boolean {
    return this.#transfer(OP_WRITE, fd, from, offset, moved);
  }

  sync(fd: number, synced: Moved): boolean {
    if (this.#broken || this.#free.length === 0) return false;
    this.#queueSync(fd, synced);
    return true;
  }

  writeAndSync(fd: number, from: Uint8Array, offset: number, moved: Moved, synced: Moved): boolean {
    if (this.#free.length < 2 || !this.#transfer(OP_WRITE + LINKED, fd, from, offset, moved)) return false;
    this.#queueSync(fd, synced);
    return true;
  }

  close(): void {
    assert(this.#inFlight === 0, 'a ring closed with requests in flight');
    this.#broken = true;
    this.#stopWatch();
    this.#wake.close();
    this.#queues.unmap();
    closeSync(this.#queues.fd);
  }

  #transfer(op: number, fd: number, buffer: Uint8Array, offset: number, moved: Moved): boolean {
    const address = arenaAddress(buffer);
    if (address === null || this.#broken || this.#free.length === 0) return false;
    const at = this.#queue(op, fd, buffer, moved);
    const { entries, entries64 } = this.#queues;
    entries64[at / 2 + 1] = BigInt(offset);
    entries64[at / 2 + 2] = address;
    entries[at + 6] = buffer.byteLength;
    return true;
  }

  #queueSync(fd: number, synced: Moved): void {
    syncBegins();
    const at = this.#queue(OP_FSYNC, fd, null, (result) => {
      syncEnded();
      synced(result);
    });
    this.#queues.entries[at + 7] = FSYNC_DATASYNC;
  }

  /** There is a free slot. Returns where the entry is, for the rest of it. */
  #queue(op: number, fd: number, buffer: Uint8Array | null, moved: Moved): number {
    const slot = this.#free.pop()!;
    slot.buffer = buffer;
    slot.moved = moved;
    slot.unordered = false;
    const { ring, entries, submitTail, entryMask } = this.#queues;
    const tail = ring[submitTail]!;
    const at = (tail & entryMask) * ENTRY_WORDS;
    entries.fill(0, at, at + ENTRY_WORDS);
    entries[at] = op;
    entries[at + 1] = fd;
    entries[at + 8] = slot.index;
    Atomics.store(ring, submitTail, (tail + 1) >>> 0);
    this.#pending++;
    if (this.#inFlight++ === 0) this.#wake.ref();
    this.#watch ??= setInterval(this.#look, WATCH_MS).unref();
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#submit);
    }
    return at;
  }

  /** Hands what this turn queued to the kernel. Never waits. */
  readonly #submit = (): void => {
    this.#scheduled = false;
    ioStep();
    const taken = this.#enter(SYS_ENTER, this.#queues.fd, this.#pending, 0, 0, 0, 0);
    if (taken > 0) this.#pending -= taken;
    if (this.#pending > 0) this.#submitRest(taken);
    // what was in the page cache has ended already
    this.#reap();
  };

  #submitRest(taken: number): void {
    this.#separate();
    const { EINTR, EAGAIN, EBUSY } = constants.errno;
    const errno = taken < 0 ? this.#errno() : 0;
    if (taken >= 0 || errno === EINTR || errno === EAGAIN || errno === EBUSY) {
      this.#scheduled = true;
      setImmediate(this.#submit);
      return;
    }
    // The kernel takes no more: what it never saw is the thread pool's from now on
    this.#broken = true;
    const { ring, entries, submitTail, entryMask } = this.#queues;
    for (let at = ring[submitTail]! - this.#pending; this.#pending > 0; at++, this.#pending--) {
      this.#end(entries[(at & entryMask) * ENTRY_WORDS + 8]!, -EAGAIN);
    }
  }

  /** The kernel knows links within one call only: a sync that is left for the next one waits for nothing. */
  #separate(): void {
    const { ring, entries, submitTail, entryMask } = this.#queues;
    const next = ring[submitTail]! - this.#pending;
    const last = entries[((next - 1) & entryMask) * ENTRY_WORDS]!;
    if ((last & LINKED) !== 0) this.#slots[entries[(next & entryMask) * ENTRY_WORDS + 8]!]!.unordered = true;
  }

  /** Everything hangs on being woken, so it is not all that is relied on. */
  readonly #look = (): void => {
    if (this.#inFlight === 0) return this.#stopWatch();
    if (!this.#alive && !this.#broken) this.#enter(SYS_ENTER, this.#queues.fd, 0, 0, ENTER_GETEVENTS, 0, 0);
    this.#alive = false;
    this.#reap();
  };

  #stopWatch(): void {
    if (this.#watch !== null) clearInterval(this.#watch);
    this.#watch = null;
  }

  #reap(): void {
    const { ring, completeHead, completeTail, completions, completionMask } = this.#queues;
    let head = ring[completeHead]!;
    if (head !== Atomics.load(ring, completeTail)) ioStep();
    while (head !== Atomics.load(ring, completeTail)) {
      const at = completions + (head & completionMask) * COMPLETION_WORDS;
      const index = ring[at]!;
      const result = ring[at + 2]! | 0;
      head = (head + 1) >>> 0;
      Atomics.store(ring, completeHead, head);
      this.#end(index, result);
    }
  }

  #end(index: number, result: number): void {
    const slot = this.#slots[index]!;
    const { moved } = slot;
    this.#alive = true;
    slot.buffer = null;
    slot.moved = null;
    this.#free.push(slot);
    if (--this.#inFlight === 0) this.#wake.unref();
    moved?.(slot.unordered && result >= 0 ? -constants.errno.ECANCELED : result);
  }
}

/** Tells the event loop of completions: an eventfd, read as if it were a pipe. Holds the process only while it is ref'd. */
class WakeHandle {
  readonly #handle: PipeHandle;
  #socket: Socket | null = null;

  constructor(eventFd: number) {
    const { Pipe, constants: kinds } = pipeBinding();
    this.#handle = new Pipe(kinds.SOCKET);
    if (this.#handle.open(eventFd) !== 0) throw new Error('an eventfd is not accepted as a pipe');
  }

  listen(woken: () => void): void {
    const options = {
      handle: this.#handle, readable: true, writable: false,
      // longer than the eight bytes that come: a full buffer would be read again at once
      onread: { buffer: Buffer.alloc(16), callback: (): boolean => { woken(); return true; } },
    };
    this.#socket = new (process.getBuiltinModule('node:net').Socket)(options);
    this.#socket.on('error', () => undefined);
    this.#socket.unref();
  }

  close(): void { this.#socket?.destroy(); }

  ref(): void { this.#handle.ref(); }
  unref(): void { this.#handle.unref(); }
}

interface PipeHandle {
  open(fd: number): number;
  ref(): void;
  unref(): void;
}

/** Node has no public way to wait for any other descriptor than a file's or a socket's. */
function pipeBinding(): { readonly Pipe: new (kind: number) => PipeHandle; readonly constants: { readonly SOCKET: number } } {
  return (createRequire(import.meta.url)('node:process') as unknown as { binding(name: string): ReturnType<typeof pipeBinding> }).binding('pipe_wrap');
}

/** The process has one ring, from its first use until its last user closes. */
let shared: Uring | null = null;
let users = 0;
let refused = false;

function mayHaveRing(): boolean {
  return !refused && capabilities().whyNot === null && process.env['QUIESCE_NO_URING'] !== '1';
}

function sharedRing(): Uring | null {
  if (shared !== null) return shared;
  try {
    shared = setUp();
  } catch { /* some step of it is not to be had here */ }
  refused = shared === null;
  return shared;
}

export type Ring = Pick<RingUser, 'read' | 'write' | 'sync' | 'writeAndSync'>;

/** Someone's hold on the ring. Nothing is set up before its first request. */
export class RingUser {
  #ring: Uring | null | undefined;

  /** False where the request cannot be taken: no ring, not arena memory, or too many in flight. `moved` is never called before it returns. */
  read(fd: number, into: Uint8Array, offset: number, moved: Moved): boolean {
    return this.#for(into)?.read(fd, into, offset, moved) ?? false;
  }

  write(fd: number, from: Uint8Array, offset: number, moved: Moved): boolean {
    return this.#for(from)?.write(fd, from, offset, moved) ?? false;
  }

  /** An fdatasync: 0 where it went well. */
  sync(fd: number, synced: Moved): boolean {
    return this.#ring?.sync(fd, synced) ?? false;
  }

  /** A write, and an fdatasync that begins once all of it is written; where not all was, `synced` hears that it was cancelled (ECANCELED). */
  writeAndSync(fd: number, from: Uint8Array, offset: number, moved: Moved, synced: Moved): boolean {
    return this.#for(from)?.writeAndSync(fd, from, offset, moved, synced) ?? false;
  }

  /** When its requests have ended. */
  close(): void {
    const ring = this.#ring ?? null;
    this.#ring = null;
    if (ring === null || --users > 0) return;
    ring.close();
    shared = null;
  }

  #for(buffer: Uint8Array): Uring | null {
    if (this.#ring === undefined && mayHaveRing() && arenaAddress(buffer) !== null) {
      this.#ring = sharedRing();
      if (this.#ring !== null) users++;
    }
    return this.#ring ?? null;
  }
}

function setUp(): Uring | null {
  const { library, view, errno } = hostLibrary();
  const call: SystemCall = library.func('int64_t syscall(int64_t call, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)');
  const setup = library.func('int64_t syscall(int64_t call, int64_t entries, void *params)') as KoffiFunc<(call: number, entries: number, params: Buffer) => number>;
  const register = library.func('int64_t syscall(int64_t call, int64_t fd, int64_t what, void *argument, int64_t count)') as
    KoffiFunc<(call: number, fd: number, what: number, argument: Buffer, count: number) => number>;
  const eventfd = library.func('int eventfd(uint32_t value, int flags)') as KoffiFunc<(value: number, flags: number) => number>;
  const mmap = library.func('void *mmap(void *at, size_t bytes, int protection, int flags, int fd, int64_t offset)') as
    KoffiFunc<(at: null, bytes: number, protection: number, flags: number, fd: number, offset: number) => unknown>;

  const params = Buffer.alloc(PARAMS_BYTES);
  params.writeUInt32LE(SETUP_COOP_TASKRUN, 8);
  let fd = setup(SYS_SETUP, ENTRIES, params);
  if (fd < 0) fd = setup(SYS_SETUP, ENTRIES, params.fill(0)); // before 5.19
  if (fd < 0) return null;
  const features = params.readUInt32LE(20);
  if ((features & FEATURE_SINGLE_MMAP) === 0 || (features & FEATURE_RW_CUR_POS) === 0) return null;

  const munmap = library.func('int munmap(void *at, size_t bytes)') as KoffiFunc<(at: unknown, bytes: number) => number>;
  const mapped: [at: unknown, bytes: number][] = [];
  const map = (bytes: number, offset: number): ArrayBuffer => {
    const at = mmap(null, bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset);
    if (at === MAP_FAILED) throw new Error('the queues cannot be mapped');
    mapped.push([at, bytes]);
    return view(at, bytes);
  };
  const queues = mapQueues(fd, params, map, () => { for (const [at, bytes] of mapped.splice(0)) munmap(at, bytes); });
  const eventFd = eventfd(0, EFD_NONBLOCK_CLOEXEC);
  const argument = Buffer.alloc(4);
  argument.writeInt32LE(eventFd);
  if (eventFd < 0 || register(SYS_REGISTER, fd, REGISTER_EVENTFD, argument, 1) < 0) return null;
  return new Uring(queues, call, errno, new WakeHandle(eventFd));
}

function mapQueues(fd: number, params: Buffer, map: (bytes: number, offset: number) => ArrayBuffer, unmap: () => void): Queues {
  const submitCount = params.readUInt32LE(0);
  const completeCount = params.readUInt32LE(4);
  // head, tail, ring_mask, ring_entries, flags, dropped, array; and head, tail, ring_mask, ring_entries, overflow, cqes
  const submit = (field: number): number => params.readUInt32LE(40 + field * 4);
  const complete = (field: number): number => params.readUInt32LE(80 + field * 4);
  const ring = new Uint32Array(map(Math.max(submit(6) + submitCount * 4, complete(5) + completeCount * COMPLETION_WORDS * 4), 0));
  const entries = new Uint32Array(map(submitCount * ENTRY_WORDS * 4, MMAP_ENTRIES));
  for (let index = 0; index < submitCount; index++) ring[submit(6) / 4 + index] = index;
  return {
    fd, ring, entries, unmap, entries64: new BigUint64Array(entries.buffer),
    submitTail: submit(1) / 4, completeHead: complete(0) / 4, completeTail: complete(1) / 4, completions: complete(5) / 4,
    completionMask: completeCount - 1, entryMask: submitCount - 1,
  };
}
