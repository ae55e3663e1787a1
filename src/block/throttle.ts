/**
 * Throttling as QEMU does it: leaky buckets, shared by the members of a group in turn. A bucket leaks at its average
 * rate; a request is let in while the bucket is not over its size, and then counted. The size is a tenth of a second of
 * the average, or with a burst rate (`-max`) what a burst of `-max-length` seconds brings; in bursts of more than one
 * second a second bucket keeps to the burst rate.
 */
import { MAX_TIMER_MS, systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import type { Admission } from './backend.js';
import type { BlockRequest } from './request.js';
import { BUCKETS, changedLimits, LIMIT_PROPERTIES, UNLIMITED, validateLimits, withProperty, type BucketName, type ThrottleLimits } from './throttle-limits.js';

type Direction = 'read' | 'write';

class Bucket {
  readonly average: number;
  readonly #max: number;
  readonly #burstSeconds: number;
  #level = 0;
  #burstLevel = 0;

  constructor(limits: ThrottleLimits, name: BucketName) {
    this.average = limits[name];
    this.#max = limits[`${name}-max`];
    this.#burstSeconds = limits[`${name}-max-length`];
  }

  leak(seconds: number): void {
    this.#level = Math.max(0, this.#level - this.average * seconds);
    this.#burstLevel = Math.max(0, this.#burstLevel - this.#max * seconds);
  }

  /** Seconds until a request may go. */
  wait(): number {
    if (this.average === 0) return 0;
    const size = this.#max === 0 ? this.average / 10 : this.#max * this.#burstSeconds;
    if (this.#level > size) return (this.#level - size) / this.average;
    const extra = this.#burstLevel - this.#max / 10;
    return this.#burstSeconds > 1 && extra > 0 ? extra / this.#max : 0;
  }

  add(units: number): void {
    this.#level += units;
    if (this.#burstSeconds > 1) this.#burstLevel += units;
  }
}

const BUCKETS_OF: Readonly<Record<Direction, readonly BucketName[]>> = {
  read: ['bps-total', 'iops-total', 'bps-read', 'iops-read'],
  write: ['bps-total', 'iops-total', 'bps-write', 'iops-write'],
};

interface Waiting {
  readonly bytes: number;
  readonly go: () => void;
}

/** A throttle-group object. Limits can be changed while requests wait: they are then measured by the new ones. */
export class ThrottleGroup {
  readonly name: string;
  readonly #clock: Clock;
  readonly #members: ThrottleMember[] = [];
  /** Whose turn it was last. */
  readonly #turn: Record<Direction, number> = { read: 0, write: 0 };
  /** The timer that is running, and how to stop it. */
  readonly #timer: Record<Direction, AbortController | null> = { read: null, write: null };
  #limits: ThrottleLimits = UNLIMITED;
  #buckets!: Readonly<Record<BucketName, Bucket>>;
  #leakedAt = 0;

  constructor(name: string, limits: Partial<ThrottleLimits> = {}, clock: Clock = systemClock) {
    this.name = name;
    this.#clock = clock;
    this.setLimits(limits);
  }

  /** From the properties of an object-add (`limits`, `x-iops-total`, …). */
  static fromProperties(name: string, properties: Readonly<Record<string, unknown>>, clock: Clock = systemClock): ThrottleGroup {
    let limits = changedLimits(UNLIMITED, properties['limits'] ?? {});
    for (const [property, value] of Object.entries(properties)) {
      if (property !== 'limits') limits = withProperty(limits, property, value as number);
    }
    validateLimits(limits);
    return new ThrottleGroup(name, limits, clock);
  }

  get limits(): ThrottleLimits { return this.#limits; }
  get memberCount(): number { return this.#members.length; }

  /** Puts `change` over the present limits; the buckets start empty. Throws INVALID_ARGUMENT and changes nothing where that is invalid. */
  setLimits(change: Partial<ThrottleLimits>): void {
    this.#limits = changedLimits(this.#limits, change);
    this.#buckets = Object.fromEntries(BUCKETS.map((name) => [name, new Bucket(this.#limits, name)])) as unknown as Record<BucketName, Bucket>;
    this.#leakedAt = this.#clock.monotonicMs();
    for (const direction of ['read', 'write'] as const) this.#restart(direction);
  }

  /** qom-get: `limits` or an x- property. */
  getProperty(property: string): ThrottleLimits | number | undefined {
    if (property === 'limits') return this.#limits;
    const name = LIMIT_PROPERTIES.get(property);
    return name === undefined ? undefined : this.#limits[name];
  }

  /** qom-set: the limits change together or not at all, since single ones would pass through invalid sets. */
  setProperty(property: string, value: unknown): void {
    if (property === 'limits') return this.setLimits(value as Partial<ThrottleLimits>);
    if (LIMIT_PROPERTIES.has(property)) throw new BlockError('INVALID_ARGUMENT', 'Property cannot be set after initialization');
    throw new BlockError('INVALID_ARGUMENT', `Property 'throttle-group.${property}' not found`);
  }

  /** `like`: the member that this one takes the place of, and that lets requests through where it does. */
  join(like?: ThrottleMember): ThrottleMember {
    const member = new ThrottleMember(this, like);
    this.#members.push(member);
    return member;
  }

  /** For ThrottleMember: lets the request in at once (null), or when its turn has come. */
  admit(member: ThrottleMember, direction: Direction, { bytes, signal }: BlockRequest): Promise<void> | null {
    if (this.#timer[direction] === null) {
      const wait = member.passes ? 0 : this.#wait(direction);
      if (wait === 0) {
        this.#account(direction, bytes);
        return null;
      }
      this.#arm(direction, member, wait);
    } else if (member.passes) {
      this.#account(direction, bytes);
      return null;
    }
    return new Promise((go, refuse) => {
      const queue = member.waiting[direction];
      const giveUp = (): void => {
        queue.splice(queue.indexOf(waiting), 1);
        refuse(signal!.reason as Error);
        this.#restart(direction);
      };
      const waiting: Waiting = { bytes, go: () => {
        signal?.removeEventListener('abort', giveUp);
        go();
      } };
      queue.push(waiting);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** For ThrottleMember: takes it out; nothing of it may wait. */
  remove(member: ThrottleMember): void {
    const at = this.#members.indexOf(member);
    if (at < 0) return;
    this.#members.splice(at, 1);
    for (const direction of ['read', 'write'] as const) {
      if (this.#turn[direction] >= at && this.#turn[direction] > 0) this.#turn[direction]--;
      this.#restart(direction);
    }
  }

  /** For ThrottleMember: lets everything in that waits. */
  release(member: ThrottleMember): void {
    for (const direction of ['read', 'write'] as const) {
      while (member.waiting[direction].length > 0) this.#letIn(member, direction);
      this.#restart(direction);
    }
  }

  #wait(direction: Direction): number {
    const now = this.#clock.monotonicMs();
    const seconds = (now - this.#leakedAt) / 1000;
    this.#leakedAt = now;
    if (seconds > 0) for (const name of BUCKETS) this.#buckets[name].leak(seconds);
    let longest = 0;
    for (const name of BUCKETS_OF[direction]) longest = Math.max(longest, this.#buckets[name].wait());
    return longest;
  }

  #account(direction: Direction, bytes: number): void {
    const size = this.#limits['iops-size'];
    const operations = size > 0 && bytes > size ? bytes / size : 1;
    for (const name of BUCKETS_OF[direction]) this.#buckets[name].add(name.startsWith('bps') ? bytes : operations);
  }

  #letIn(member: ThrottleMember, direction: Direction): void {
    const { bytes, go } = member.waiting[direction].shift()!;
    this.#account(direction, bytes);
    go();
  }

  /** Measures anew what waits: limits or members have changed. */
  #restart(direction: Direction): void {
    this.#timer[direction]?.abort();
    this.#timer[direction] = null;
    this.#next(direction);
  }

  /** Lets requests in, member by member, until one has to wait. */
  #next(direction: Direction): void {
    for (let member = this.#nextMember(direction); member !== null; member = this.#nextMember(direction)) {
      const wait = this.#wait(direction);
      if (wait > 0) {
        this.#arm(direction, member, wait);
        return;
      }
      this.#turn[direction] = this.#members.indexOf(member);
      this.#letIn(member, direction);
    }
  }

  #nextMember(direction: Direction): ThrottleMember | null {
    const count = this.#members.length;
    for (let step = 1; step <= count; step++) {
      const member = this.#members[(this.#turn[direction] + step) % count]!;
      if (member.waiting[direction].length > 0) return member;
    }
    return null;
  }

  #arm(direction: Direction, member: ThrottleMember, seconds: number): void {
    const timer = new AbortController();
    this.#timer[direction] = timer;
    const ms = Math.min(seconds * 1000, MAX_TIMER_MS);
    void this.#clock.sleep(ms, timer.signal).then(() => {
      if (this.#timer[direction] !== timer) return;
      this.#timer[direction] = null;
      if (ms === MAX_TIMER_MS) return this.#next(direction);
      // The one that was waited for goes without being measured again: a timer's rounding must not hold it up
      if (member.waiting[direction].length > 0) {
        this.#turn[direction] = this.#members.indexOf(member);
        this.#letIn(member, direction);
      }
      this.#next(direction);
    });
  }
}

/** One user of a group: a throttle node, or a backend. */
export class ThrottleMember {
  readonly group: ThrottleGroup;
  readonly waiting: Readonly<Record<Direction, Waiting[]>> = { read: [], write: [] };
  #passing: number;

  /** Made by ThrottleGroup.join. */
  constructor(group: ThrottleGroup, like?: ThrottleMember) {
    this.group = group;
    this.#passing = like === undefined ? 0 : like.#passing;
  }

  /** True while its node is drained: requests are counted, but do not wait. */
  get passes(): boolean { return this.#passing > 0; }

  /** For BlockBackend.admission. Flushes are never held up. */
  readonly admission: Admission = (request) => this.admit(request);

  admit(request: BlockRequest): Promise<void> | null {
    if (request.op === 'flush') return null;
    return this.group.admit(this, request.op === 'read' ? 'read' : 'write', request);
  }

  /** Lets in what waits, and what comes until `unpass`. Calls nest. */
  pass(): void {
    this.#passing++;
    if (this.#passing === 1) this.group.release(this);
  }

  unpass(): void {
    this.#passing--;
  }

  /** Lets in what waits and gives up the place in the group. */
  leave(): void {
    this.group.release(this);
    this.group.remove(this);
  }
}
