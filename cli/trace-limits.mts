/** What a trace must keep for `trace report` to succeed: limits of latencies, and rules that may find nothing. */
import { RULE_NAMES, SPANS, type DeviceStatistics, type Finding, type Histogram, type Severity, type TraceAnalysis } from '../src/index.js';
import { UsageError } from './command.mjs';
import { deviceLabel, durationText } from './trace-report-text.mjs';

const SEVERITIES: readonly Severity[] = ['note', 'warning', 'critical'];
const UNITS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9 };
export const LATENCIES = [...SPANS, 'read', 'write', 'flush', 'discard'] as const;
type Latency = typeof LATENCIES[number];

export interface LatencyLimit {
  readonly latency: Latency;
  /** `avg`, `max`, or a share from 0 to 1. */
  readonly of: 'avg' | 'max' | number;
  readonly ns: number;
  /** As it was given, without the limit. */
  readonly name: string;
}

/** `q2c.p99=10ms`. */
export function parseLimit(text: string): LatencyLimit {
  const [, latency, of, amount, unit] = /^([a-z0-9]+)\.(avg|max|p\d{1,2}(?:\.\d+)?)=(\d+(?:\.\d+)?)(ns|us|ms|s)$/.exec(text) ?? [];
  if (!(LATENCIES as readonly (string | undefined)[]).includes(latency)) {
    throw new UsageError(`the limit '${text}' is none: expected LATENCY.WHICH=TIME such as q2c.p99=10ms, with one of ${LATENCIES.join(', ')}, then avg, max or p50 to p99.99, then ns, us, ms or s`);
  }
  return { latency: latency as Latency, of: of!.startsWith('p') ? Number(of!.slice(1)) / 100 : of as 'avg' | 'max', ns: Number(amount) * UNITS[unit!]!, name: `${latency}.${of}` };
}

/** Names of rules, or severities that stand for themselves and what is worse, with commas between. */
export function parseFailOn(texts: readonly string[]): (finding: Finding) => boolean {
  const words = texts.flatMap((text) => text.split(',')).filter((word) => word !== '');
  const known: readonly string[] = [...RULE_NAMES, ...SEVERITIES];
  const unknown = words.find((word) => !known.includes(word));
  if (unknown !== undefined) throw new UsageError(`there is no rule or severity '${unknown}': expected some of ${known.join(', ')}`);
  return ({ rule, severity }) => words.includes(rule) || words.some((word) => SEVERITIES.includes(word as Severity) && SEVERITIES.indexOf(word as Severity) <= SEVERITIES.indexOf(severity));
}

/** A sentence for each that is not kept. */
export function brokenLimits(analysis: TraceAnalysis, limits: readonly LatencyLimit[], fails: (finding: Finding) => boolean): readonly string[] {
  const slow = [...analysis.statistics.devices.all].flatMap(([device, statistics]) => limits.flatMap(({ latency, of, ns, name }) => {
    const histogram = latencyOf(statistics, latency);
    const value = of === 'avg' ? histogram.mean : of === 'max' ? histogram.max : histogram.quantile(of);
    return histogram.count > 0 && value > ns ? [`${name} of ${deviceLabel(device, analysis)} is ${durationText(value)}, more than ${durationText(ns)}`] : [];
  }));
  return [...slow, ...analysis.findings.filter(fails).map(({ rule, device, title }) => `${rule} on ${deviceLabel(device, analysis)}: ${title}`)];
}

function latencyOf({ spans, reads, writes, flushes, discards }: DeviceStatistics, latency: Latency): Histogram {
  switch (latency) {
    case 'read': return reads.q2c;
    case 'write': return writes.q2c;
    case 'flush': return flushes;
    case 'discard': return discards;
    default: return spans[latency];
  }
}
