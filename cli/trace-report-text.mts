/** What `trace report` prints for people. */
import { BTT_ROWS, SPANS, type BttDevice, type DeviceStatistics, type Direction, type Finding, type Histogram, type TraceAnalysis } from '../src/index.js';
import type { Column, Output } from './output.mjs';

/** Depths of which the time is told one by one: those at which most was spent. */
const DEPTHS = 6;
const PROCESSES = 20;
const MODES = 4;
const QUANTILES = [0.5, 0.9, 0.99, 0.999] as const;

/** `8,0`, with the name that a recording of ours gives it. */
export function deviceLabel(device: number, { deviceNames }: Pick<TraceAnalysis, 'deviceNames'>): string {
  if (device < 0) return 'others';
  const number = `${Math.floor(device / 0x10_0000)},${device % 0x10_0000}`;
  const name = deviceNames.get(device);
  return name === undefined ? number : `${number} ${name}`;
}

/** Three digits and a unit. */
export function durationText(ns: number): string {
  if (!Number.isFinite(ns)) return '-';
  const [unit, scale] = ns < 1e3 ? ['ns', 1] : ns < 1e6 ? ['us', 1e3] : ns < 1e9 ? ['ms', 1e6] : ['s', 1e9] as const;
  return `${Number((ns / scale).toPrecision(3))} ${unit}`;
}

function bytesText(bytes: number): string {
  if (!Number.isFinite(bytes)) return '-';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const unit = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  return `${Number((bytes / 1024 ** unit).toPrecision(3))} ${units[unit]}`;
}

const seconds = (ns: number): string => (Number.isFinite(ns) ? (ns / 1e9).toFixed(9) : '-');
const share = (part: number, whole: number): string => (whole > 0 ? `${(100 * part / whole).toFixed(4)}%` : '-');
const percent = (value: number): string => (Number.isFinite(value) ? `${Math.round(value * 100)} %` : '-');

export function printReport(analysis: TraceAnalysis, broken: readonly string[], out: Output): void {
  printFindings(analysis, out);
  if (broken.length > 0) {
    out.line('Not kept:');
    for (const sentence of broken) out.line(`  ${sentence}`);
    out.line();
  }
  printTrace(analysis, out);
  const devices = [...analysis.statistics.devices.all];
  if (devices.length === 0) return;
  printTraffic(devices, analysis, out);
  printLatencies(devices, analysis, out);
  printDepths(devices, analysis, out);
  printProcesses(devices, analysis, out);
  printLayers(analysis, out);
  printBtt(analysis, out);
}

function printFindings(analysis: TraceAnalysis, out: Output): void {
  if (analysis.findings.length === 0) out.line('Nothing that looks wrong was found.');
  analysis.findings.forEach((finding, index) => printFinding(finding, index + 1, analysis, out));
  out.line();
}

function printFinding({ rule, severity, title, sentence, cure, region, evidence, device }: Finding, number: number, analysis: TraceAnalysis, out: Output): void {
  out.line(`${number}. ${severity}: ${title} (${rule}), device ${deviceLabel(device, analysis)}`);
  out.line(`   ${sentence}`);
  out.line(`   ${cure}`);
  const sectors = region.toSector > region.fromSector ? `, sectors ${region.fromSector} to ${region.toSector}` : '';
  out.line(`   From ${seconds(region.fromNs)} s to ${seconds(region.toNs)} s${sectors}; for example:`);
  for (const { id, timeNs, what } of evidence.slice(0, 3)) out.line(`     ${seconds(timeNs)} s, request ${id}: ${what}`);
}

function printTrace({ records, ios, endNs, counts, dropped }: TraceAnalysis, out: Output): void {
  out.line(`${records} records, ${ios} requests, ${durationText(endNs)}`);
  const rest: readonly (readonly [count: number, what: string])[] = [
    [counts.refused, 'were refused at once'], [counts.failed, 'failed'], [counts.requeued, 'were requeued'], [counts.merges, 'were merged'], [counts.splits, 'were split'],
    [counts.withoutQueue, 'were queued before the trace began, or the trace lost that'], [counts.withoutEnd, 'have no end'],
  ];
  for (const [count, what] of rest) if (count > 0) out.line(`  ${count} ${what}`);
  if (dropped > 0) out.line(`  ${dropped} records found no room when they were recorded`);
  out.line();
}

type Devices = readonly (readonly [device: number, statistics: DeviceStatistics])[];

function printTraffic(devices: Devices, analysis: TraceAnalysis, out: Output): void {
  const rows = devices.flatMap(([device, statistics]) => {
    const name = deviceLabel(device, analysis);
    const elapsed = statistics.elapsedNs / 1e9;
    const of = (what: string, { count, bytes, sizes, sequentiality }: Direction) => ({
      name, what, count, bytes: bytesText(bytes), rate: `${bytesText(bytes / elapsed)}/s`, iops: (count / elapsed).toFixed(1), size: bytesText(sizes.roundQuantile(0.5)), sequential: percent(sequentiality),
    });
    const plain = (what: string, count: number, bytes: number) => ({
      name, what, count, bytes: bytes > 0 ? bytesText(bytes) : '-', rate: '-', iops: (count / elapsed).toFixed(1), size: '-', sequential: '-',
    });
    return [
      ...(statistics.reads.count > 0 ? [of('reads', statistics.reads)] : []), ...(statistics.writes.count > 0 ? [of('writes', statistics.writes)] : []),
      ...(statistics.flushes.count > 0 ? [plain('flushes', statistics.flushes.count, 0)] : []), ...(statistics.forced > 0 ? [plain('durable writes (FUA)', statistics.forced, 0)] : []),
      ...(statistics.discards.count > 0 ? [plain('discards', statistics.discards.count, statistics.discardBytes)] : []),
    ];
  });
  out.table(rows, [
    { title: 'DEVICE', value: (row) => row.name }, { title: 'WHAT', value: (row) => row.what }, right('COUNT', (row) => row.count), right('BYTES', (row) => row.bytes),
    right('RATE', (row) => row.rate), right('PER SECOND', (row) => row.iops), right('SIZE (P50)', (row) => row.size), right('SEQUENTIAL', (row) => row.sequential),
  ]);
  out.line();
}

function right<T>(title: string, value: (row: T) => string | number): Column<T> {
  return { title, align: 'right', value };
}

interface LatencyRow { readonly name: string; readonly what: string; readonly histogram: Histogram }

const LATENCY_COLUMNS: readonly Column<LatencyRow>[] = [
  right('N', ({ histogram }) => histogram.count), right('MIN', ({ histogram }) => durationText(histogram.min)), right('AVG', ({ histogram }) => durationText(histogram.mean)),
  ...QUANTILES.map((quantile) => right<LatencyRow>(`P${quantile * 100}`, ({ histogram }) => durationText(histogram.quantile(quantile)))),
  right('MAX', ({ histogram }) => durationText(histogram.max)),
];

function printLatencies(devices: Devices, analysis: TraceAnalysis, out: Output): void {
  const rows = devices.flatMap(([device, { spans, reads, writes, flushes, discards }]) => {
    const all: readonly (readonly [what: string, histogram: Histogram])[] = [
      ...SPANS.map((span) => [span.toUpperCase(), spans[span]] as const), ['reads Q2C', reads.q2c], ['writes Q2C', writes.q2c], ['flushes Q2C', flushes], ['discards Q2C', discards],
    ];
    return all.filter(([, { count }]) => count > 0).map(([what, histogram]) => ({ name: deviceLabel(device, analysis), what, histogram }));
  });
  out.table(rows, [{ title: 'DEVICE', value: (row) => row.name }, { title: 'LATENCY', value: (row) => row.what }, ...LATENCY_COLUMNS]);
  out.line();
}

function printDepths(devices: Devices, analysis: TraceAnalysis, out: Output): void {
  const rows = devices.flatMap(([device, { inDevice, outstanding }]) => [['in the device', inDevice] as const, ['waited for', outstanding] as const].filter(([, { max }]) => max > 0).map(([what, meter]) => {
    const most = Array.from({ length: meter.depths - 1 }, (_, at) => at + 1).filter((depth) => meter.at(depth) > 0).sort((a, b) => meter.at(b) - meter.at(a)).slice(0, DEPTHS).sort((a, b) => a - b);
    return { name: deviceLabel(device, analysis), what, meter, times: most.map((depth) => `${depth}: ${percent(meter.at(depth) / meter.busyNs)}`).join(', ') };
  }));
  out.table(rows, [
    { title: 'DEVICE', value: (row) => row.name }, { title: 'REQUESTS', value: (row) => row.what }, right('MEAN', ({ meter }) => meter.meanBusy.toFixed(2)), right('MAX', ({ meter }) => meter.max),
    right('BUSY', ({ meter }) => percent(meter.busyNs / (meter.busyNs + meter.at(0)))), { title: 'SHARE OF THE BUSY TIME AT', value: (row) => row.times },
  ]);
  out.line();
}

function printProcesses(devices: Devices, analysis: TraceAnalysis, out: Output): void {
  const rows = devices.flatMap(([device, { processes }]) => [...processes.all].map(([pid, { reads, writes, flushes }]) => ({ name: deviceLabel(device, analysis), pid, reads, writes, flushes })))
    .sort((a, b) => b.reads.count + b.writes.count - a.reads.count - a.writes.count);
  const latency = ({ q2c }: Direction): string => (q2c.count === 0 ? '-' : `${durationText(q2c.quantile(0.5))} / ${durationText(q2c.quantile(0.99))}`);
  out.table(rows.slice(0, PROCESSES), [
    { title: 'PROCESS', value: ({ pid }) => (pid < 0 ? 'others' : `${analysis.processes.get(pid) ?? '?'} ${pid}`) }, { title: 'DEVICE', value: (row) => row.name },
    right('READS', ({ reads }) => reads.count), right('BYTES', ({ reads }) => bytesText(reads.bytes)), right('SEQ', ({ reads }) => percent(reads.sequentiality)), right('P50 / P99', ({ reads }) => latency(reads)),
    right('WRITES', ({ writes }) => writes.count), right('BYTES', ({ writes }) => bytesText(writes.bytes)), right('SEQ', ({ writes }) => percent(writes.sequentiality)), right('P50 / P99', ({ writes }) => latency(writes)),
    right('FLUSHES', ({ flushes }) => flushes),
  ]);
  if (rows.length > PROCESSES) out.line(`and ${rows.length - PROCESSES} more`);
  out.line();
}

function printLayers(analysis: TraceAnalysis, out: Output): void {
  const { links, devices } = analysis.statistics;
  if (links.length === 0) return;
  out.table(links, [
    { title: 'LAYER', value: ({ lower }) => deviceLabel(lower, analysis) }, { title: 'FOR', value: ({ upper }) => deviceLabel(upper, analysis) }, right('REQUESTS', ({ requests }) => requests),
    right('PER REQUEST', ({ upper, requests, flushes }) => ((requests - flushes) / Math.max(1, devices.all.get(upper)?.count ?? 0)).toFixed(2)),
    right('BYTES', ({ bytes }) => bytesText(bytes)), right('PER BYTE', ({ upper, bytes }) => (bytes / Math.max(1, devices.all.get(upper)?.bytes ?? 0)).toFixed(2)), right('FLUSHES', ({ flushes }) => flushes),
  ]);
  out.line();
}

function printBtt({ btt }: TraceAnalysis, out: Output): void {
  out.line("btt's numbers, in seconds, of all requests with bytes, also those that failed:");
  const { all } = btt;
  out.table(BTT_ROWS.filter((row) => all[row].count > 0), [
    { title: 'ALL', value: (row) => row }, right('MIN', (row) => seconds(all[row].min)), right('AVG', (row) => seconds(all[row].mean)), right('MAX', (row) => seconds(all[row].max)), right('N', (row) => all[row].count),
  ]);
  out.line();
  const devices = [...btt.devices.all.values()];
  const name: Column<BttDevice> = { title: 'DEV', value: ({ device }) => deviceLabel(device, { deviceNames: new Map() }) };
  out.table(devices, [name, ...(['Q2G', 'G2I', 'Q2M', 'I2D', 'D2C'] as const).map((row) => right<BttDevice>(row, ({ rows, q2cNs }) => share(rows[row].sum, q2cNs)))]);
  out.line();
  out.table(devices, [
    name, right('#Q', ({ queues }) => queues), right('#D', ({ issues }) => issues), right('RATIO', ({ queues, issues }) => (issues === 0 ? '-' : Math.max(1, queues / issues).toFixed(1))),
    right('BLKMIN', ({ blocks }) => whole(blocks.min)), right('BLKAVG', ({ blocks, issues }) => (issues === 0 ? '-' : Math.floor(blocks.sum / issues))), right('BLKMAX', ({ blocks }) => whole(blocks.max)), right('TOTAL', ({ blocks }) => blocks.sum),
  ]);
  out.line();
  for (const [title, seeks] of [['Q2Q', 'queueSeeks'], ['D2D', 'issueSeeks']] as const) {
    out.table(devices.filter((device) => device[seeks].distances.count > 0), [
      name, right(`${title} SEEKS`, (device) => device[seeks].distances.count), right('MEAN', (device) => device[seeks].distances.mean.toFixed(1)), right('MEDIAN', (device) => device[seeks].median),
      { title: 'MODE', value: (device) => modeText(device[seeks].mode) },
    ]);
    out.line();
  }
  out.table(devices, [
    name, right('PLUGS', ({ plugs, timerUnplugs }) => `${plugs}(${timerUnplugs})`), right('PLUGGED', ({ pluggedNs, firstNs, lastNs }) => share(pluggedNs, lastNs - firstNs)),
    right('IOS/UNPLUG', ({ plugs, plugUnplugged }) => (plugs === 0 ? '-' : (plugUnplugged / plugs).toFixed(1))), right('WAITING AT Q', ({ waitingSum, queues }) => (queues === 0 ? '-' : (waitingSum / queues).toFixed(1))),
    right('LIVE', ({ active }) => active.busyPeriods), right('AVG ACT', ({ active }) => seconds(active.busyNs / active.busyPeriods)),
    right('AVG !ACT', ({ active }) => seconds((active.lastNs - active.busyNs) / (active.busyPeriods - 1))), right('% LIVE', ({ active }) => share(active.busyNs, active.lastNs)),
  ]);
}

const whole = (value: number): string => (Number.isFinite(value) ? String(value) : '-');

function modeText({ distances, count }: { readonly distances: readonly number[]; readonly count: number }): string {
  const more = distances.length > MODES ? ` and ${distances.length - MODES} more` : '';
  return distances.length === 0 ? '-' : `${distances.slice(0, MODES).join(' ')}${more} (${count})`;
}
