/** What `trace report --json` prints. Times are ns; what is not known is null. */
import { BTT_ROWS, HISTOGRAM_ERROR, SPANS, type DepthMeter, type Direction, type Histogram, type Summary, type TraceAnalysis } from '../src/index.js';

const QUANTILES = { p50: 0.5, p90: 0.9, p95: 0.95, p99: 0.99, 'p99.9': 0.999, 'p99.99': 0.9999 } as const;

const known = (value: number): number | null => (Number.isFinite(value) ? value : null);
const summary = ({ count, min, max, mean, sum }: Summary) => ({ count, min: known(min), avg: known(mean), max: known(max), sum });
const histogram = (values: Histogram) => ({ ...summary(values), ...Object.fromEntries(Object.entries(QUANTILES).map(([name, quantile]) => [name, known(values.quantile(quantile))])) });
const direction = ({ count, bytes, sequentiality, sizes, q2c }: Direction) => ({ count, bytes, sequential: known(sequentiality), sizes: histogram(sizes), q2c: histogram(q2c) });

function depth(meter: DepthMeter): object {
  const nsAtDepth = Array.from({ length: meter.depths }, (_, at) => at).filter((at) => meter.at(at) > 0).map((at) => [at, meter.at(at)]);
  return { max: meter.max, mean: known(meter.meanBusy), busyNs: meter.busyNs, nsAtDepth };
}

export function reportJson(analysis: TraceAnalysis, broken: readonly string[]): object {
  const { records, ios, endNs, counts, dropped, findings, statistics, btt } = analysis;
  const number = (device: number): string => (device < 0 ? 'others' : `${Math.floor(device / 0x10_0000)},${device % 0x10_0000}`);
  return {
    records, requests: ios, endNs, counts, dropped, quantileError: HISTOGRAM_ERROR, broken,
    findings: findings.map(({ rule, severity, device, title, sentence, cure, evidence, region, numbers }) => ({ rule, severity, device: number(device), title, sentence, cure, evidence, region, numbers })),
    devices: [...statistics.devices.all].map(([device, one]) => ({
      device: number(device), name: analysis.deviceNames.get(device) ?? null, elapsedNs: known(one.elapsedNs), reads: direction(one.reads), writes: direction(one.writes),
      flushes: histogram(one.flushes), discards: { ...histogram(one.discards), bytes: one.discardBytes }, forced: one.forced, failed: one.failed, refused: one.refused, merged: one.merged,
      spans: Object.fromEntries(SPANS.map((span) => [span, histogram(one.spans[span])])), inDevice: depth(one.inDevice), outstanding: depth(one.outstanding),
      processes: [...one.processes.all].map(([pid, process]) => ({
        pid: pid < 0 ? null : pid, name: analysis.processes.get(pid) ?? null, reads: direction(process.reads), writes: direction(process.writes), flushes: process.flushes,
      })),
    })),
    layers: statistics.links.map(({ upper, lower, requests, bytes, flushes }) => ({ upper: number(upper), lower: number(lower), requests, bytes, flushes })),
    btt: {
      all: Object.fromEntries(Object.entries(btt.all).map(([row, values]) => [row, summary(values)])),
      devices: [...btt.devices.all].map(([device, one]) => ({
        device: number(device), rows: Object.fromEntries(BTT_ROWS.map((row) => [row, summary(one.rows[row])])), queues: one.queues, issues: one.issues, blocks: summary(one.blocks),
        q2qSeeks: { ...summary(one.queueSeeks.distances), median: known(one.queueSeeks.median), mode: one.queueSeeks.mode },
        d2dSeeks: { ...summary(one.issueSeeks.distances), median: known(one.issueSeeks.median), mode: one.issueSeeks.mode },
        plugs: one.plugs, timerUnplugs: one.timerUnplugs, plugUnplugged: one.plugUnplugged, timerUnplugged: one.timerUnplugged, pluggedNs: one.pluggedNs,
        waitingAtQueue: known(one.waitingSum / one.queues), active: depth(one.active), activePeriods: one.active.busyPeriods,
      })),
    },
  };
}
