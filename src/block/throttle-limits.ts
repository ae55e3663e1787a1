/** The limits of a throttle group: their names (QAPI's ThrottleLimits), what combinations are valid, QOM's x- forms. */
import { BlockError } from '../base/errors.js';

/** What a bucket counts, as QAPI spells it, in QAPI's order. */
export const BUCKETS = ['iops-total', 'iops-read', 'iops-write', 'bps-total', 'bps-read', 'bps-write'] as const;
export type BucketName = (typeof BUCKETS)[number];
export type ThrottleLimitName = BucketName | `${BucketName}-max` | `${BucketName}-max-length` | 'iops-size';
/** Per second; `-max` is the burst rate, `-max-length` how many seconds a burst lasts; `iops-size` the bytes of one operation. */
export type ThrottleLimits = Readonly<Record<ThrottleLimitName, number>>;

export const LIMIT_NAMES: readonly ThrottleLimitName[] = [
  ...BUCKETS.flatMap((name) => [name, `${name}-max`, `${name}-max-length`] as const), 'iops-size',
];

const MAX_VALUE = 1e15;
const MAX_LENGTH = 0xffff_ffff;

export const UNLIMITED: ThrottleLimits = Object.fromEntries(LIMIT_NAMES.map((name) => [name, name.endsWith('-length') ? 1 : 0])) as Record<ThrottleLimitName, number>;

/** The x- properties of a throttle-group object, which may only be given while it is made. */
export const LIMIT_PROPERTIES: ReadonlyMap<string, ThrottleLimitName> = new Map(LIMIT_NAMES.map((name) => [`x-${name}`, name]));

function invalid(text: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', text, { errno: 'EINVAL' });
}

/** `current` with `change` over it; throws INVALID_ARGUMENT (QEMU's texts) and changes nothing where that is no valid set. */
export function changedLimits(current: ThrottleLimits, change: Partial<ThrottleLimits>): ThrottleLimits {
  for (const name of LIMIT_NAMES) {
    if (name.endsWith('-length') && (change[name] ?? 0) > MAX_LENGTH) throw invalid(`${name} value must be in the range [0, ${MAX_LENGTH}]`);
  }
  const limits = { ...current, ...change };
  validateLimits(limits);
  return limits;
}

/** Takes one x- property into `limits`; the whole set is validated once all of them are there. */
export function withProperty(limits: ThrottleLimits, property: string, value: number): ThrottleLimits {
  const name = LIMIT_PROPERTIES.get(property);
  if (name === undefined) throw invalid(`Property 'throttle-group.${property}' not found`);
  if (value < 0) throw invalid('Property values cannot be negative');
  if (name.endsWith('-length') && value > MAX_LENGTH) throw invalid(`${property} value must be in therange [0, ${MAX_LENGTH}]`); // as QEMU has it
  return { ...limits, [name]: value };
}

export function validateLimits(limits: ThrottleLimits): void {
  const both = (kind: 'bps' | 'iops', suffix: '' | '-max'): boolean =>
    limits[`${kind}-total${suffix}`] > 0 && (limits[`${kind}-read${suffix}`] > 0 || limits[`${kind}-write${suffix}`] > 0);
  if (both('bps', '') || both('iops', '') || both('bps', '-max') || both('iops', '-max')) {
    throw invalid('bps/iops/max total values and read/write values cannot be used at the same time');
  }
  if (limits['iops-size'] !== 0 && limits['iops-total'] === 0 && limits['iops-read'] === 0 && limits['iops-write'] === 0) {
    throw invalid('iops size requires an iops value to be set');
  }
  for (const name of ['bps-total', 'bps-read', 'bps-write', 'iops-total', 'iops-read', 'iops-write'] as const) {
    validateBucket(limits[name], limits[`${name}-max`], limits[`${name}-max-length`]);
  }
}

function validateBucket(average: number, max: number, length: number): void {
  const within = (value: number): boolean => value >= 0 && value <= MAX_VALUE;
  if (!within(average) || !within(max)) throw invalid(`bps/iops/max values must be within [0, ${MAX_VALUE}]`);
  if (length === 0) throw invalid('the burst length cannot be 0');
  if (length > 1 && max === 0) throw invalid('burst length set without burst rate');
  if (max > 0 && length > MAX_VALUE / max) throw invalid('burst length too high for this burst rate');
  if (max > 0 && average === 0) throw invalid('bps_max/iops_max require corresponding bps/iops values');
  if (max > 0 && max < average) throw invalid('bps_max/iops_max cannot be lower than bps/iops');
}
